"""A gateway in front of fake engines on real sockets, and clients whose every byte a test writes itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Protocol

import uvloop
from msgspec import Struct

from millrace.control import Controller, ControlSettings
from millrace.core.fleet import RoutingPolicy
from millrace.gateway.app import Gateway
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.gateway.tokens import NO_TOKENIZERS, Tokenizer
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.testing.engine import FakeEngine

PATIENCE_S = 20.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on the loop that the gateway is served with."""
    uvloop.run(asyncio.wait_for(scenario, PATIENCE_S))


def controller(routing: RoutingPolicy | None = None, **settings: Any) -> Controller:
    """A controller with policies that are easy to predict."""
    return Controller(routing or RoundRobin(), Fcfs(), ControlSettings(**settings))


class Served(Protocol):
    """What a gateway can be put in front of."""

    name: str

    @property
    def url(self) -> str:
        """Where it listens."""


@asynccontextmanager
async def gateway_for(
    *engines: Served,
    mind: Controller | None = None,
    tokenizers: Mapping[str, Tokenizer] = NO_TOKENIZERS,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """Serve in front of these engines, each known by its name."""
    backends = tuple(f"{engine.name}={engine.url}" for engine in engines)
    defaults: dict[str, Any] = {"backends": backends, "port": 0, "scrape_s": 0.05}
    chosen = GatewaySettings(**(defaults | settings))
    async with listening(chosen, mind or controller(), tokenizers=tokenizers) as gateway:
        yield gateway


@asynccontextmanager
async def one_engine(**settings: Any) -> AsyncIterator[tuple[FakeEngine, Gateway]]:
    """The smallest world."""
    async with FakeEngine("a") as engine, gateway_for(engine, **settings) as gateway:
        yield engine, gateway


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to become true, or fail."""
    until_s = monotonic() + PATIENCE_S / 2
    while not condition():
        assert monotonic() < until_s, f"never happened: {what}"
        await asyncio.sleep(0.005)


class Answer(Struct, frozen=True):
    """An answer as a client saw it; `chunks` are its HTTP chunks, `whole` whether it ended properly."""

    status: int
    fields: dict[str, str]
    body: bytes
    chunks: list[bytes]
    whole: bool

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The decoded data of a stream's events, `[DONE]` as a string."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Caller:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, data: bytes, *, head_only: bool = False) -> Answer:
        """Write a request and read its answer."""
        await self.say(data)
        return await self.answer(head_only=head_only)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer; a cut one is not `whole`."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        if head_only or status < 200 or status == 204:
            assert status != 204 or "content-length" not in fields
            return Answer(status, fields, b"", [], True)
        chunks, whole = await self._body(fields)
        return Answer(status, fields, b"".join(chunks), chunks, whole)

    async def ended(self) -> bool:
        """Whether the gateway closes the connection without another word."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Leave at once."""
        self.writer.transport.abort()

    async def _body(self, fields: dict[str, str]) -> tuple[list[bytes], bool]:
        chunks: list[bytes] = []
        try:
            if "content-length" in fields:
                return [await self.reader.readexactly(int(fields["content-length"]))], True
            if "transfer-encoding" not in fields:
                return [await self.reader.read()], True
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                chunks.append(await self.reader.readexactly(size))
                assert await self.reader.readexactly(2) == b"\r\n"
            return chunks, await self.reader.readexactly(2) == b"\r\n"
        except (asyncio.IncompleteReadError, ConnectionError):
            return chunks, False


class Listening(Protocol):
    """What has a port to connect to."""

    port: int


@asynccontextmanager
async def caller(gateway: Listening, *, limit: int = 1 << 24) -> AsyncIterator[Caller]:
    """Connect to a gateway; a client reads ahead by `limit` bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=limit)
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


async def ask(gateway: Listening, data: bytes) -> Answer:
    """Ask over a connection of its own."""
    async with caller(gateway) as one:
        return await one.ask(data)


def post(body: bytes, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    """A POST of these bytes."""
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: h", f"content-length: {len(body)}", *lines, "", ""])
    return head.encode() + body


def chat(*lines: str, **fields: Any) -> bytes:
    """A chat request; fields are added to its body, lines to its head."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    return post(json.dumps(body).encode(), *lines)


def get(path: str, method: str = "GET") -> bytes:
    """A request without a body."""
    return f"{method} {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode()

"""A fake engine: OpenAI-shaped answers at a chosen pace over real sockets, and every way an engine can break.

For tests of whatever stands in front of engines. It says what it heard, works on and saw aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from millrace.testing.script import Break, BrokenError, Heard, Script, pieces


class FakeEngine:
    """Serves on a free port of the loopback from `start` to `stop`; change `script` at any time.

    `pages` are raw answers to GET and `/tokenize` by path, in place of its own; an engine not `healthy`
    answers 503. One that `tokenizes` takes every byte of a prompt for a token, after `tokenize_s`. What is
    asked of it passes the `gate`, if there is one, which says how it is answered.
    """

    def __init__(
        self,
        name: str = "engine",
        *,
        models: tuple[str, ...] = ("m",),
        script: Script | None = None,
        max_model_len: int = 8192,
    ) -> None:
        self.name = name
        self.models = models
        self.max_model_len = max_model_len
        self.script = script or Script()
        self.heard: list[Heard] = []
        self.live = 0
        self.aborted = 0
        self.connections = 0
        self.healthy = True
        self.tokenizes = False
        self.tokenize_s = 0.0
        self.asked_for_tokens = 0
        self.pages: dict[str, bytes] = {}
        self.gate: Callable[[Heard], Awaitable[Script]] | None = None
        self._port = 0
        self._server: asyncio.Server | None = None
        self.open_connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def id(self) -> str:
        """The replica's name at a gateway."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> FakeEngine:
        """Listen: on a free port the first time, on the same one after a stop."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, backlog=1024
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.open_connections):
            connection.reset()

    async def __aenter__(self) -> FakeEngine:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def metrics(self) -> bytes:
        """Its load in vLLM's names."""
        return (
            f'vllm:num_requests_running{{model_name="{self.models[0]}"}} {float(self.live)}\n'
            f'vllm:num_requests_waiting{{model_name="{self.models[0]}"}} 0.0\n'
        ).encode()

    def cards(self) -> bytes:
        """Its models."""
        data = [
            {"id": name, "object": "model", "owned_by": self.name, "max_model_len": self.max_model_len}
            for name in self.models
        ]
        return msgspec.json.encode({"object": "list", "data": data})


class _Connection(asyncio.Protocol):
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._engine.connections += 1
        self._engine.open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.open_connections.discard(self)
        if self._task is not None and not self._task.done():
            self._engine.aborted += 1
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        heard, size = _parse(self._buffer)
        if heard is not None:
            self._buffer = self._buffer[size:]
            self._task = asyncio.get_running_loop().create_task(self._answer(heard))

    def reset(self) -> None:
        self._transport.abort()

    async def _answer(self, heard: Heard) -> None:
        engine, script = self._engine, self._engine.script
        if heard.method == "GET":
            self._transport.write(_page(engine, heard.path))
            return
        if heard.path == "/tokenize":
            engine.asked_for_tokens += 1
            await asyncio.sleep(engine.tokenize_s)
            self._transport.write(_tokens(engine, heard))
            return
        engine.heard.append(heard)
        engine.live += 1
        try:
            if engine.gate is not None:
                script = await engine.gate(heard)
            async for piece in pieces(engine.name, heard, script):
                await self._write(piece, script.split_bytes)
            if script.until_close or script.hang_up:
                self._transport.close()
        except BrokenError:
            await self._break(script.breaks)
        finally:
            engine.live -= 1

    async def _write(self, data: bytes, split_bytes: int | None) -> None:
        size = split_bytes or len(data) or 1
        for start in range(0, len(data), size):
            await self._writable.wait()
            self._transport.write(data[start : start + size])
            if split_bytes:
                await asyncio.sleep(0)

    async def _break(self, how: Break) -> None:
        if how == "garbage":
            self._transport.write(b"\x00\xffnot HTTP at all\r\n\r\n")
        elif how == "close":
            self._transport.close()
        elif how == "reset":
            self.reset()
        if how in ("silence", "garbage"):
            await asyncio.Event().wait()


def _parse(data: bytes) -> tuple[Heard | None, int]:
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None, 0
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None, 0
    return Heard(method, path, headers, rest[:length]), len(head) + 4 + length


def _tokens(engine: FakeEngine, heard: Heard) -> bytes:
    if heard.path in engine.pages:
        return engine.pages[heard.path]
    body = heard.json
    text = body["prompt"] if "prompt" in body else "".join(one["content"] for one in body["messages"])
    return _answer(
        "200 OK" if engine.tokenizes else "404 Not Found",
        msgspec.json.encode({"tokens": list(text.encode())}),
    )


def _page(engine: FakeEngine, path: str) -> bytes:
    if path in engine.pages:
        return engine.pages[path]
    pages = {"/health": b"", "/v1/models": engine.cards(), "/metrics": engine.metrics()}
    status = (
        "404 Not Found" if path not in pages else "200 OK" if engine.healthy else "503 Service Unavailable"
    )
    body = pages.get(path, b"")
    return _answer(status, body)


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

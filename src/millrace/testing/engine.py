"""A fake engine: OpenAI-shaped answers at a chosen pace over real sockets, and every way an engine can break.

For tests of whatever stands in front of engines. It says what it heard, what it works on, and what was aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

Break = Literal["", "reset", "close", "garbage", "silence"]


class Script(Struct, frozen=True, kw_only=True):
    """How an engine answers.

    `breaks` happens before the head, or after `break_after` tokens if that is set. `raw` replaces the whole
    answer. `split_bytes` cuts everything into writes of that size. `hang_up` closes the connection after each
    answer without announcing it. `pad_bytes` makes each token longer.
    """

    tokens: int = 3
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    status: int = 200
    headers: tuple[str, ...] = ()
    breaks: Break = ""
    break_after: int | None = None
    raw: bytes | None = None
    split_bytes: int | None = None
    hang_up: bool = False
    until_close: bool = False
    end_mark: bool = True
    pad_bytes: int = 0
    cached_tokens: int = 0


class Heard(Struct, frozen=True):
    """A request as the engine got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return msgspec.json.decode(self.body)


class FakeEngine:
    """Serves on a free port of the loopback from `start` to `stop`; change `script` at any time."""

    def __init__(
        self, name: str = "engine", *, models: tuple[str, ...] = ("m",), script: Script | None = None
    ) -> None:
        self.name = name
        self.models = models
        self.script = script or Script()
        self.heard: list[Heard] = []
        self.live = 0
        self.aborted = 0
        self.connections = 0
        self.healthy = True
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

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
        for connection in list(self._open):
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
            {"id": name, "object": "model", "owned_by": self.name, "max_model_len": 8192}
            for name in self.models
        ]
        return msgspec.json.encode({"object": "list", "data": data})


class _Broken(Exception):
    """The connection is to be broken here."""


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
        self._engine._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine._open.discard(self)
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
        engine.heard.append(heard)
        engine.live += 1
        try:
            async for piece in _pieces(engine, heard, script):
                await self._write(piece, script.split_bytes)
            if script.until_close or script.hang_up:
                self._transport.close()
        except _Broken:
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


def _page(engine: FakeEngine, path: str) -> bytes:
    pages = {"/health": b"", "/v1/models": engine.cards(), "/metrics": engine.metrics()}
    status = (
        "404 Not Found" if path not in pages else "200 OK" if engine.healthy else "503 Service Unavailable"
    )
    body = pages.get(path, b"")
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def _pieces(engine: FakeEngine, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    if script.raw is not None:
        yield script.raw
        return
    if script.breaks and script.break_after is None:
        raise _Broken
    await asyncio.sleep(script.ttft_s)
    streaming = script.status == 200 and heard.json.get("stream")
    async for piece in _stream(engine, heard, script) if streaming else _whole(engine, heard, script):
        yield piece


async def _whole(engine: FakeEngine, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    await asyncio.sleep(script.tpot_s * script.tokens)
    body = msgspec.json.encode(_json(heard, script))
    head = _head(engine, script, "application/json", [f"content-length: {len(body)}"])
    if script.break_after is not None:
        yield head + body[: len(body) // 2]
        raise _Broken
    yield head + body


async def _stream(engine: FakeEngine, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    framing = [] if script.until_close else ["transfer-encoding: chunked"]
    yield _head(engine, script, "text/event-stream; charset=utf-8", framing)
    for number in range(script.tokens):
        if number == script.break_after:
            raise _Broken
        if number:
            await asyncio.sleep(script.tpot_s)
        yield _framed(b"data: %b\n\n" % msgspec.json.encode(_event(heard, script, number)), script)
    if (heard.json.get("stream_options") or {}).get("include_usage"):
        event = _event(heard, script, None) | {"choices": [], "usage": _usage(heard, script)}
        yield _framed(b"data: %b\n\n" % msgspec.json.encode(event), script)
    if script.end_mark:
        yield _framed(b"data: [DONE]\n\n", script)
    yield b"" if script.until_close else b"0\r\n\r\n"


def _framed(event: bytes, script: Script) -> bytes:
    return event if script.until_close else b"%x\r\n%b\r\n" % (len(event), event)


def _head(engine: FakeEngine, script: Script, content_type: str, lines: list[str]) -> bytes:
    all_lines = [
        f"HTTP/1.1 {script.status} Whatever",
        f"content-type: {content_type}",
        f"x-engine: {engine.name}",
    ]
    return "\r\n".join([*all_lines, *lines, *script.headers, "", ""]).encode()


def _json(heard: Heard, script: Script) -> dict[str, Any]:
    if script.status >= 400:
        return {"error": {"message": f"status {script.status}", "type": "fake", "param": None, "code": None}}
    if heard.path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5] * script.tokens}]
        return {"object": "list", "data": data, "model": heard.json["model"], "usage": _usage(heard, script)}
    event = _event(heard, script, None)
    text = "".join(_token(number, script) for number in range(script.tokens))
    event["choices"] = [{"index": 0, "finish_reason": "stop"} | _content(heard, text, "message")]
    event["object"] = event["object"].removesuffix(".chunk")
    return event | {"usage": _usage(heard, script)}


def _event(heard: Heard, script: Script, number: int | None) -> dict[str, Any]:
    kind = "chat.completion.chunk" if "chat" in heard.path else "text_completion"
    event = {
        "id": heard.headers.get("x-request-id"),
        "object": kind,
        "created": 0,
        "model": heard.json["model"],
    }
    if number is not None:
        reason = "stop" if number == script.tokens - 1 else None
        content = _content(heard, _token(number, script), "delta")
        event |= {"choices": [{"index": 0, "finish_reason": reason} | content]}
    return event


def _content(heard: Heard, text: str, key: str) -> dict[str, Any]:
    return {key: {"role": "assistant", "content": text}} if "chat" in heard.path else {"text": text}


def _token(number: int, script: Script) -> str:
    return f"{number} ".ljust(script.pad_bytes, "x")


def _usage(heard: Heard, script: Script) -> dict[str, Any]:
    prompt = len(heard.body) // 4
    return {
        "prompt_tokens": prompt,
        "completion_tokens": script.tokens,
        "total_tokens": prompt + script.tokens,
        "prompt_tokens_details": {"cached_tokens": script.cached_tokens},
    }

"""What a fake engine says: OpenAI-shaped answers, and every way in which they can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

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


class BrokenError(Exception):
    """The connection is to be broken here."""


async def pieces(name: str, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    """Yield an answer's bytes as they are to be written. Raises BrokenError where it breaks."""
    if script.raw is not None:
        yield script.raw
        return
    if script.breaks and script.break_after is None:
        raise BrokenError
    await asyncio.sleep(script.ttft_s)
    streaming = script.status == 200 and heard.json.get("stream")
    async for piece in _stream(name, heard, script) if streaming else _whole(name, heard, script):
        yield piece


async def _whole(name: str, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    await asyncio.sleep(script.tpot_s * script.tokens)
    body = msgspec.json.encode(_json(heard, script))
    head = _head(name, script, "application/json", [f"content-length: {len(body)}"])
    if script.break_after is not None:
        yield head + body[: len(body) // 2]
        raise BrokenError
    yield head + body


async def _stream(name: str, heard: Heard, script: Script) -> AsyncIterator[bytes]:
    framing = [] if script.until_close else ["transfer-encoding: chunked"]
    yield _head(name, script, "text/event-stream; charset=utf-8", framing)
    for number in range(script.tokens):
        if number == script.break_after:
            raise BrokenError
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


def _head(name: str, script: Script, content_type: str, lines: list[str]) -> bytes:
    all_lines = [
        f"HTTP/1.1 {script.status} Whatever",
        f"content-type: {content_type}",
        f"x-engine: {name}",
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

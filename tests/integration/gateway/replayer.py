"""Engines that always give the same answer token by token, go on with it, and break where a test says."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from millrace.gateway.resuming import Dialect

PROMPT = [11, 12, 13]
TEXT = "naïve ☃ café 日本"
TOKENS = list(TEXT.encode())  # a token is a byte, so many a character takes several
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
How = Literal["close", "stall", "end"]


class Wish(Struct, frozen=True):
    """What a request asks for; `had` is the answer so far, or None if it asks for one from the start.

    `own`: it came in the field `resume`, so that usage speaks of the whole answer.
    """

    chat: bool
    told: bool
    usage: bool
    had: list[int] | None
    own: bool


class Replayer:
    """An engine on a real socket that speaks like ours, or like vLLM.

    Answers break after so many bytes of their bodies as `cuts` say, the next one first; several engines may
    share them. It notes the bodies it `heard`, and refuses to go on with what it never said.
    """

    def __init__(
        self, name: str, dialect: Dialect | None = "millrace", *, cuts: list[int], how: How = "close"
    ) -> None:
        self.name, self.dialect, self.how = name, dialect, how
        self.cuts = cuts
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.refuses, self.well = False, True
        self.url = ""
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Replayer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._closing.set()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open)

    def body_bytes(self, path: str, body: dict[str, Any]) -> bytes:
        """The whole body of an answer, framed."""
        wish = read(path, body)
        assert wish is not None
        events = [b"data: %b\n\n" % data for data in spoken(wish, f"{self.name}-{len(self.heard)}")]
        return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        if method == "GET":
            writer.write(whole(200 if self.well else 500, self._cards()))
            return True
        length = next(int(line[16:]) for line in head.split("\r\n") if line.startswith("content-length: "))
        body = json.loads(await reader.readexactly(length))
        self.heard.append((path, body))
        wish = read(path, body)
        if wish is None or (self.refuses and wish.had is not None):
            writer.write(whole(400, {"error": {"message": "I never said that"}}))
            return True
        answer, cut = self.body_bytes(path, body), self.cuts.pop(0) if self.cuts else None
        if cut is None or cut >= len(answer):
            writer.write(HEAD + answer)
            return True
        at = cut if self.how != "end" else answer.rindex(b"\n\n\r\n", 0, cut) + 4
        writer.write(HEAD + answer[:at])
        await writer.drain()
        if self.how == "stall":
            await self._closing.wait()
        writer.write(b"0\r\n\r\n" if self.how == "end" else b"")
        writer.close()
        return False

    def _cards(self) -> dict[str, Any]:
        card: dict[str, Any] = {"id": "m", "object": "model", "owned_by": self.dialect or "somebody"}
        return {"data": [card | ({"resume": True} if self.dialect == "millrace" else {})]}


def read(path: str, body: dict[str, Any]) -> Wish | None:
    """What a body asks for; None if it is to go on with what this engine never says."""
    had: list[int] | None = None
    own = "resume" in body
    if own:
        prompt, had = body["resume"]["prompt_token_ids"], body["resume"]["token_ids"]
    elif isinstance(given := body.get("prompt"), list):
        prompt, had = given[: len(PROMPT)], given[len(PROMPT) :]
    if had is not None:
        left = len(TOKENS) - (0 if own else len(had))
        if (prompt, had, body["max_tokens"]) != (PROMPT, TOKENS[: len(had)], left):
            return None
    told, options = body.get("return_token_ids") is True, body.get("stream_options") or {}
    return Wish("chat" in path, told, options.get("include_usage") is True, had, own)


def spoken(wish: Wish, id: str) -> Iterator[bytes]:
    """The data of an answer's events."""
    had, fresh = wish.had or [], wish.had is None
    kind = "chat.completion.chunk" if wish.chat else "text_completion"
    envelope = {"id": id, "object": kind, "created": len(id), "model": "m"}
    told = {"prompt_token_ids": PROMPT} if wish.told else {}
    if wish.chat and fresh:
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield encoded({**envelope, "choices": [role], **told})
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoder.decode(bytes(had))
    for place in range(len(had), len(TOKENS)):
        text = decoder.decode(bytes([TOKENS[place]]))
        choice: dict[str, Any] = {"index": 0} | (
            {"delta": {"content": text}} if wish.chat else {"text": text}
        )
        choice["finish_reason"] = "length" if place == len(TOKENS) - 1 else None
        choice |= told if not wish.chat and place == len(had) and not wish.own else {}
        yield encoded(
            {**envelope, "choices": [choice | ({"token_ids": [TOKENS[place]]} if wish.told else {})]}
        )
    if wish.usage:
        prompt, output = len(PROMPT), len(TOKENS)
        if had and not wish.own:
            prompt, output = prompt + len(had), output - len(had)
        counts = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        yield encoded({**envelope, "choices": [], "usage": counts})
    yield b"[DONE]"


def encoded(body: dict[str, Any]) -> bytes:
    """JSON as engines write it."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def whole(status: int, body: dict[str, Any]) -> bytes:
    """An answer that is no stream."""
    data = encoded(body)
    fields = f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    return f"HTTP/1.1 {status} Whatever\r\n{fields}\r\n".encode() + data

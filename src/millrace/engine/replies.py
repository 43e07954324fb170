"""Sending an answer: as one body or as server-sent events, and noticing when its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millrace.engine.answer import Answer, Part
from millrace.engine.errors import ApiError
from millrace.engine.loop import EngineLoop
from millrace.engine.responses import Format, usage

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply:
    """An ASGI response that waits for an answer and aborts it when the client disconnects.

    `more` is added to a whole body; `over` is called when the answer has ended.
    """

    def __init__(self, loop: EngineLoop, answer: Answer, format: Format, *, choices: int) -> None:
        self._loop, self._answer, self._format, self._choices = loop, answer, format, choices
        self.more: Callable[[], dict[str, Any]] = dict
        self.over: Callable[[], None] = _nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._abort_on_disconnect(receive))
        try:
            await self._send(scope, receive, send)
        finally:
            watch.cancel()
            self._loop.abort(self._answer)
            self.over()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole: dict[int, Part] = {}
        async for parts in self._answer.parts():
            for part in parts:
                whole[part.index] = part.merged(whole.get(part.index))
        body = self._format.whole([whole[index] for index in sorted(whole)])
        await json_response(body | {"usage": self._usage()} | self.more())(scope, receive, send)

    async def _abort_on_disconnect(self, receive: Receive) -> None:
        await _disconnected(receive)
        self._loop.abort(self._answer)

    def _usage(self) -> dict[str, Any]:
        return usage(self._answer.generations, self._choices)


class StreamedReply(Reply):
    """Sends each part when it comes; an error after the first byte becomes an event of the stream."""

    def __init__(
        self, loop: EngineLoop, answer: Answer, format: Format, *, choices: int, include_usage: bool
    ) -> None:
        super().__init__(loop, answer, format, choices=choices)
        self._include_usage = include_usage

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for parts in self._answer.parts():
                if chunk := b"".join(
                    self._event(event) for part in parts for event in self._format.chunk(part)
                ):
                    yield chunk
            if self._answer.parted:
                return  # whoever has the rest says how it ends
            if self._include_usage:
                yield _event(self._format.usage_chunk(self._usage()))
            yield b"data: [DONE]\n\n"
        except ApiError as error:
            yield _event(error.body)

    def _event(self, event: dict[str, Any]) -> bytes:
        return _event(event | {"usage": None} if self._include_usage else event)


class Arriving:
    """An ASGI response that `comes` from another engine, if its client waits so long."""

    def __init__(self, comes: Callable[[], Coroutine[Any, Any, Reply]]) -> None:
        self._comes = comes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coming, gone = asyncio.create_task(self._comes()), asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((coming, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (coming, gone):
                task.cancel()
        if gone.done() and not coming.done():
            await asyncio.gather(coming, return_exceptions=True)
        else:
            await (await coming)(scope, receive, send)


def json_response(body: Any, status: int = 200) -> Response:
    """A response with a JSON body."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _nothing() -> None:
    """Nobody wants to know."""


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"

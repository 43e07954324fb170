"""The engine side: pooled keep-alive connections that hand each answer's bytes to whoever asked for it."""

from __future__ import annotations

import asyncio
import errno
from typing import cast
from urllib.parse import quote

from millrace.gateway.framing import (
    HEAD_END,
    HEAD_LIMIT_BYTES,
    Body,
    FramingError,
    Head,
    OpenBody,
    body_of,
    parse_head,
)
from millrace.gateway.receiver import Answer, Receiver
from millrace.gateway.resuming import Dialect
from millrace.gateway.settings import Backend

IDLE_LIMIT = 256
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
OURSELVES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""Errors of connecting that say nothing of the engine: we have run out of something."""


class EngineConnection(asyncio.Protocol):
    """One connection to an engine: used by one receiver at a time, resting in a pool between."""

    __slots__ = (
        "_body",
        "_engine",
        "_head",
        "_heard",
        "_keep",
        "_paused",
        "_receiver",
        "_request",
        "_reused",
        "_transport",
        "answer",
    )

    def __init__(self, engine: Engine) -> None:
        self.answer: Answer | None = None
        self._engine = engine
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._request = b""
        self._body: Body | None = None
        self._head = b""
        self._heard = self._keep = self._paused = self._reused = False

    def send(self, receiver: Receiver, request: bytes) -> None:
        """Write a request whose answer the receiver waits for; at once, or as soon as connected."""
        self._receiver, self._request, self._heard = receiver, request, False
        if self._transport is not None:
            self._reused = True
            self._transport.write(request)

    def hand_to(self, receiver: Receiver, answer: Answer) -> None:
        """Let another one have the rest of the answer that comes."""
        self._receiver, self.answer = receiver, answer
        receiver.connection = self

    def abort(self) -> None:
        """Drop the connection now, so that the engine stops working for it."""
        self._receiver = self.answer = self._body = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more from the engine until `resume`."""
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether the engine is kept waiting by a slow client."""
        return self._paused

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waited for the connection; nobody may wait any more."""
        self._transport = cast(asyncio.Transport, transport)
        if self._receiver is None:
            self._transport.close()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Hand on a piece of the answer; one that is a single chunk keeps its framing."""
        self._heard = True
        body, answer = self._body, self.answer
        if body is None or answer is None:
            self._read_head(data)
        elif start := body.payload_start(data):
            answer.framed(data, start)
        else:
            self._read_body(body, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, but send again what was sent on an idle connection that had gone stale."""
        receiver, answer, body = self._receiver, self.answer, self._body
        self._receiver = self.answer = self._body = None
        self._engine.forget(self)
        if receiver is None:
            return
        receiver.connection = None
        if isinstance(body, OpenBody) and answer is not None and exc is None:
            answer.end(by_close=True)
        elif self._reused and not self._heard:
            receiver.connection = self._engine.send(receiver, self._request, fresh=True)
        else:
            receiver.on_broken("reset", "the engine closed the connection before its answer was complete")

    def fail(self, reason: str, why: str, *, down: bool = False) -> None:
        """Drop the connection and tell the receiver why."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.connection = None
            receiver.on_broken(reason, why, down=down)

    def _read_head(self, data: bytes) -> None:
        """Read heads until one is final; nothing may come while nobody waits."""
        self._head += data
        while self._receiver is not None and (end := self._head.find(HEAD_END)) >= 0:
            block, self._head = self._head[:end], self._head[end + len(HEAD_END) :]
            try:
                head = parse_head(block)
            except FramingError as error:
                self.fail("garbage", f"the engine's answer is malformed: {error}")
                return
            if head.status >= 200:
                rest, self._head = self._head, b""
                self._begin_body(self._receiver, head, rest)
                return
            if head.status == 101:
                self.fail("garbage", "the engine switched protocols without being asked")
        if self._receiver is None:
            self.abort()
        elif len(self._head) > HEAD_LIMIT_BYTES or not self._head.startswith(b"HTTP/1."[: len(self._head)]):
            self.fail("garbage", "the engine sent something other than an HTTP answer")

    def _begin_body(self, receiver: Receiver, head: Head, rest: bytes) -> None:
        self._keep = head.keep_alive
        if head.length == len(rest):
            self._let_go(clean=True)
            receiver.on_whole(head, rest)
        else:
            body = self._body = body_of(head)
            self.answer = receiver.on_head(head)
            self._read_body(body, rest)

    def _read_body(self, body: Body, data: bytes) -> None:
        payload = body.feed(data)
        if payload and self.answer is not None:
            self.answer.payload(payload)
        if body.broken:
            self.fail("garbage", f"the engine's answer is malformed: {body.broken}")
        elif body.done and self.answer is not None:
            answer = self.answer
            self._let_go(clean=not body.extra)
            answer.end(by_close=False)

    def _let_go(self, *, clean: bool) -> None:
        """Return to the pool before the answer's end is told, since that may well send the next request."""
        if self._paused:
            self.resume()
        if self._receiver is not None:
            self._receiver.connection = None
        self._receiver = self.answer = self._body = None
        self._request = b""
        if self._keep and clean:
            self._engine.rest(self)
        elif self._transport is not None:
            self._transport.close()


class Engine:
    """One engine's connections; `id` is the replica's name in events and metrics.

    `dialect` is how it is asked to go on with another one's answer, None if it cannot or has not said.
    """

    def __init__(self, backend: Backend, *, connect_timeout_s: float) -> None:
        self.backend = backend
        self.id = backend.id
        self.dialect: Dialect | None = None
        self._answer_fields: dict[str, bytes] = {}
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[EngineConnection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._request_lines: dict[tuple[bytes, bytes], bytes] = {}

    def request_line(self, method: bytes, target: bytes, query: bytes = b"") -> bytes:
        """Return the request line and host header; those without a query are remembered."""
        line = None if query else self._request_lines.get((method, target))
        if line is None:
            base, authority = self.backend.base.encode(), self.backend.authority.encode()
            mark = b"?" if query else b""
            line = b"%b %b%b%b%b HTTP/1.1\r\nhost: %b\r\n" % (method, base, target, mark, query, authority)
            if not query:
                self._request_lines[method, target] = line
        return line

    def answer_fields(self, model: str) -> bytes:
        """Return the header lines that say who answered; `model` is one that the engine serves."""
        fields = self._answer_fields.get(model)
        if fields is None:
            names = self.id.encode(), quote(model, safe=VISIBLE).encode()
            fields = b"x-millrace-replica: %b\r\nx-millrace-model: %b\r\n" % names
            self._answer_fields[model] = fields
        return fields

    def send(self, receiver: Receiver, request: bytes, *, fresh: bool = False) -> EngineConnection:
        """Send a request over an idle connection, or over a new one; the receiver hears how it goes."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(receiver, request)
                return connection
        connection = EngineConnection(self)
        connection.send(receiver, request)
        task = asyncio.get_running_loop().create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return connection

    def rest(self, connection: EngineConnection) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) < IDLE_LIMIT:
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: EngineConnection) -> None:
        """A connection is closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Drop idle connections and those being made."""
        for task in self._connecting:
            task.cancel()
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self, connection: EngineConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: connection, self.backend.host, self.backend.port)
        except TimeoutError:
            connection.fail(
                "connect_timeout", f"no connection within {self._connect_timeout_s:g} s", down=True
            )
        except OSError as error:
            down = error.errno not in OURSELVES
            connection.fail("connect", f"no connection: {error.strerror or error}", down=down)

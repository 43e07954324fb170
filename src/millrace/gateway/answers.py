"""Three ways to pass an engine's answer on to a client.

JSON answers are held until complete, so that one which breaks off can be tried elsewhere or become a proper
error; event streams go out event by event, so that an error can always be put in-band; anything larger than
the hold limit is passed through as it comes and, when it breaks, cut.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from millrace.gateway.errors import in_band
from millrace.gateway.framing import LAST_CHUNK, Head, chunk
from millrace.gateway.usage import NO_USAGE, EventSieve, Usage, last_usage

if TYPE_CHECKING:
    from millrace.gateway.exchange import Exchange

HELD_LIMIT_BYTES = 1 << 20
TAIL_BYTES = 4096


class HeldAnswer:
    """Collects an answer until it is complete. Nothing has reached the client before."""

    __slots__ = ("_exchange", "_head", "_parts", "_size")
    committed = False

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self._head = head
        self._parts: list[bytes] = []
        self._size = 0

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Keep a piece; pass everything through once it is too much to keep."""
        self._exchange.heard_s = monotonic()
        self._parts.append(payload)
        self._size += len(payload)
        if self._size > HELD_LIMIT_BYTES:
            passed = PassedAnswer(self._exchange, self._head)
            passed.payload(b"".join(self._parts))
            self._exchange.overflow(passed)

    def end(self, *, by_close: bool) -> None:
        """Hand over the complete answer."""
        self._exchange.held(self._head, b"".join(self._parts))

    def cut(self, why: str) -> None:
        """Nothing was sent, so nothing is broken."""


class PassedAnswer:
    """Passes a large answer through as it comes."""

    __slots__ = ("_chunked", "_exchange", "_head", "_tail", "committed")

    def __init__(self, exchange: Exchange, head: Head) -> None:
        self._exchange = exchange
        self._head = head
        self._chunked = head.length is None and not exchange.client.bare
        self._tail = b""
        self.committed = False

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Pass a piece on."""
        self._tail = (
            (self._tail + payload)[-TAIL_BYTES:] if len(payload) < TAIL_BYTES else payload[-TAIL_BYTES:]
        )
        now = self._exchange.heard_s = monotonic()
        data = chunk(payload) if self._chunked else payload
        if self.committed:
            self._exchange.client.write(data)
            return
        self.committed = True
        self._exchange.client.write(self._exchange.opening(self._head, self._framing()) + data)
        self._exchange.begun(now)

    def end(self, *, by_close: bool) -> None:
        """Finish; an answer without length that ends by a closed connection may be whole or not."""
        if self._chunked:
            self._exchange.client.write(LAST_CHUNK)
        usage = NO_USAGE if self._head.encoded else last_usage(self._tail)
        self._exchange.finished(self._head.status, usage)

    def cut(self, why: str) -> None:
        """The client must not take a part for the whole."""
        self._exchange.client.cut()

    def _framing(self) -> bytes:
        if self._head.length is not None:
            return b"content-length: %d\r\n" % self._head.length
        return b"transfer-encoding: chunked\r\n" if self._chunked else b""


class EventStream:
    """Passes server-sent events on; the bytes of an event are never changed but for its model's name."""

    __slots__ = ("_events", "_exchange", "_head", "_last_s", "_renaming", "_sieve", "_write", "committed")

    def __init__(self, exchange: Exchange, head: Head, *, strip_usage: bool) -> None:
        self._exchange = exchange
        self._head = head
        self._sieve = EventSieve(strip=strip_usage)
        self._renaming = None if head.encoded else exchange.renaming()
        self._write: Callable[[bytes], None] = self._open
        self._events = 0
        self._last_s = 0.0
        self.committed = False

    def framed(self, data: bytes, start: int) -> None:
        """Pass one HTTP chunk on untouched if it holds whole events and the client reads chunks."""
        if self._exchange.client.bare or self._renaming is not None or not self._sieve.passes(data):
            self.payload(data[start:-2])
            return
        self._write(data)
        self._count(data.count(b"data:"))

    def payload(self, payload: bytes) -> None:
        """Pass on the events that are complete."""
        self._exchange.heard_s = monotonic()
        self._send(self._sieve.feed(payload))

    def end(self, *, by_close: bool) -> None:
        """Finish. A stream ended by a closed connection is only whole if its end mark was seen."""
        complete = self._sieve.complete(self._exchange.kind)
        if not complete and not by_close and (moving := self._exchange.moving):
            moving.left(self)
            return
        if not complete and self._breaks_off(by_close=by_close):
            self._exchange.on_broken("reset", "the engine closed the connection before its stream's end")
            return
        self._send(self._sieve.end())
        if self._exchange.ended:
            return
        self._write(b"" if self._exchange.client.bare else LAST_CHUNK)
        self._exchange.finished(self._head.status, self._usage(), events=self._events, complete=complete)

    def cut(self, why: str) -> None:
        """Say in the stream that it is broken, then end it properly."""
        event = in_band(why, self._exchange.kind)
        bare = self._exchange.client.bare
        self._write(event if bare else chunk(event) + LAST_CHUNK)

    def _usage(self) -> Usage:
        return self._sieve.usage()

    def _breaks_off(self, *, by_close: bool) -> bool:
        """Whether a stream that ends without its end mark counts as broken."""
        return by_close

    def _send(self, events: bytes) -> None:
        if events:
            if self._renaming is not None:
                events = self._renaming(events)
            self._write(events if self._exchange.client.bare else chunk(events))
            self._count(events.count(b"data:"))

    def _count(self, events: int) -> None:
        """Note when tokens came; comments are no tokens."""
        if not events:
            return
        now = self._exchange.heard_s = monotonic()
        if self._events:
            self._exchange.gap(now - self._last_s)
        else:
            self._exchange.first_token(now)
        self._last_s = now
        self._events += events

    def _open(self, data: bytes) -> None:
        """Send the head together with the first bytes of the body."""
        fields = b"" if self._exchange.client.bare else b"transfer-encoding: chunked\r\n"
        said = self._head.fields.lower()
        for field in (b"cache-control: no-cache\r\n", b"x-accel-buffering: no\r\n"):
            fields += b"" if field[: field.index(b":") + 1] in said else field
        self.committed = True
        self._write = self._exchange.client.write
        self._write(self._exchange.opening(self._head, fields) + data)

"""The client side: one connection, answering its requests one at a time and in order.

No request makes a Task or a timer here: the gateway calls `check` on every connection now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

from millrace.gateway.errors import Fault
from millrace.gateway.request import Incoming, RequestReader
from millrace.gateway.settings import GatewaySettings

WRITE_HIGH_BYTES = 128 * 1024
LINGER_S = 2.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Work(Protocol):
    """What a connection is busy with."""

    def client_gone(self) -> None:
        """Nobody waits for it any more."""

    def pause(self) -> None:
        """Write no more for now."""

    def resume(self) -> None:
        """Writing is welcome again."""


class House(Protocol):
    """Where clients come to."""

    settings: GatewaySettings
    clients: set[ClientConnection]
    draining: bool

    def accept(self, client: ClientConnection, incoming: Incoming) -> None:
        """Answer a request that was read in full, or send it on its way."""


class ClientConnection(asyncio.Protocol):
    """One client's connection; `closing` after the answer at hand, `bare` if the client reads no chunks.

    A client that closes its half of the connection is taken to be gone, as every SDK means it.
    """

    __slots__ = (
        "_advancing",
        "_house",
        "_lingering",
        "_pace",
        "_reader",
        "_reading_paused",
        "_since_s",
        "_stalled",
        "_transport",
        "bare",
        "closing",
        "current",
        "write",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self._reader = RequestReader(house.settings.max_body_bytes)
        self._transport: asyncio.Transport | None = None
        self._advancing = self._lingering = self._reading_paused = self._stalled = False
        self._pace = 0
        self._since_s = monotonic()
        self.bare = self.closing = False
        self.current: Work | None = None
        self.write: Callable[[bytes], None] = _drop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to answer."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.write = self._transport.write
        self._house.clients.add(self)

    def data_received(self, data: bytes) -> None:
        """Read requests; what comes after the last one is dropped."""
        reader = self._reader
        if reader.ended:
            return
        reader.feed(data)
        if self.current is None:
            self._advance()
        elif reader.ready and self._transport is not None and not self._reading_paused and reader.is_full:
            self._reading_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work nobody waits for."""
        self._house.clients.discard(self)
        self._transport, self.write = None, _drop
        self._reader.ready.clear()
        self._reader.ended = True
        work, self.current = self.current, None
        if work is not None:
            work.client_gone()

    def pause_writing(self) -> None:
        """The client reads slower than the engine writes: slow the engine down."""
        self._stalled, self._since_s = True, monotonic()
        if self.current is not None:
            self.current.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._stalled = False
        if self.current is not None:
            self.current.resume()
        else:
            self._advance()

    def respond(self, data: bytes) -> None:
        """Write a complete answer."""
        self.write(data)
        self.done()

    def done(self) -> None:
        """The answer at hand is written; go on to the next request, or close."""
        self.current = None
        self._since_s = monotonic()
        if self.closing or self._house.draining:
            self.close()
        elif not self._advancing and (self._reader.ready or self._reader.awaits_continue):
            self._advance()

    @property
    def stalled(self) -> bool:
        """Whether it reads slower than engines write."""
        return self._stalled

    def cut(self) -> None:
        """Drop the connection, so that the client sees a broken answer."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def check(self, now_s: float) -> None:
        """Give up on a client that is silent within a request, reads nothing, or was idle for long."""
        settings, silent_s = self._house.settings, now_s - self._since_s
        if self._lingering or self._stalled:
            if silent_s > (LINGER_S if self._lingering else settings.client_timeout_s):
                self.cut()
        elif self.current is None and self._reader.in_message:
            if self._reader.pace != self._pace:
                self._pace, self._since_s = self._reader.pace, now_s
            elif silent_s > settings.client_timeout_s:
                self._reader.refuse(Fault(408, f"the request stopped for {settings.client_timeout_s:g} s"))
                self._advance()
        elif self.current is None and silent_s > settings.idle_timeout_s:
            self.close()

    def _advance(self) -> None:
        """Answer what is ready, in order, as long as answers are read."""
        reader = self._reader
        self._advancing = True
        try:
            while reader.ready and self.current is None and not self._stalled and not self._lingering:
                incoming = reader.ready.popleft()
                self.bare = incoming.bare
                self.closing = self._house.draining or not incoming.keep_alive
                self._house.accept(self, incoming)
        finally:
            self._advancing = False
        if self._reading_paused and self._transport is not None and not reader.ready:
            self._reading_paused = False
            self._transport.resume_reading()
        if reader.awaits_continue and self.current is None:
            reader.awaits_continue = False
            self.write(CONTINUE)

    def close(self) -> None:
        """Close, but first let a client that is still sending read its answer: a reset would destroy it."""
        self._reader.ready.clear()
        self._reader.ended = True
        if self._transport is None or self._lingering:
            return
        if self._reader.refused and self._transport.can_write_eof():
            self._lingering, self._since_s = True, monotonic()
            self._transport.write_eof()
        else:
            self._transport.close()


def _drop(data: bytes) -> None:
    """Nobody is there to read it."""

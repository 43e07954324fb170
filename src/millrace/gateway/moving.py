"""An answer under way moves from one engine to another, and its client reads on as if nothing had happened.

Source: live migration as in Llumnix (Sun et al., OSDI 2024), here between engines that speak for themselves.
Until the old engine ends its stream without the end mark, the answer is its own, whatever the new one says;
from then on it is the new one's. So there is one place that decides, and nothing is lost or said twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from millrace.core.event import Moved
from millrace.gateway.framing import Head
from millrace.gateway.handing import moving
from millrace.gateway.receiver import Answer
from millrace.gateway.usage import USAGE_EVENTS

if TYPE_CHECKING:
    from millrace.gateway.answers import EventStream
    from millrace.gateway.app import Gateway
    from millrace.gateway.exchange import Exchange
    from millrace.gateway.upstream import Engine, EngineConnection


class Arrival:
    """The rest of an answer where it goes on: kept waiting until the old engine has said its last."""

    __slots__ = (
        "_alarm",
        "_exchange",
        "_gateway",
        "_left",
        "_pieces",
        "_ready",
        "_whole",
        "connection",
        "engine",
    )

    def __init__(self, gateway: Gateway, exchange: Exchange, engine: Engine, request: bytes) -> None:
        self._gateway, self._exchange, self.engine = gateway, exchange, engine
        self._left: EventStream | None = None
        self._pieces: list[bytes] = []
        self._ready = self._whole = False
        patience_s = gateway.settings.move_timeout_s
        self._alarm = asyncio.get_running_loop().call_later(patience_s, self._too_late)
        self.connection: EngineConnection | None = engine.send(self, request)

    def left(self, stream: EventStream) -> None:
        """The old engine has ended its part of this stream."""
        self._left = stream
        self._exchange.connection = None
        if self._ready:
            self._join(stream)

    def close(self) -> None:
        """Nobody wants it any more."""
        self._alarm.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()

    def on_head(self, head: Head) -> Answer:
        """The engine has taken the answer over, or refuses to."""
        if not _goes_on(head):
            self._stay(f"status_{head.status}")
            return self
        self._ready = True
        if self._left is not None:
            self._join(self._left)
            return self._left
        if self.connection is not None:
            self.connection.pause()
        return self

    def on_whole(self, head: Head, body: bytes) -> None:
        """All of the rest came at once, or a refusal."""
        if not _goes_on(head):
            self._stay(f"status_{head.status}")
            return
        self._ready = self._whole = True
        self._pieces.append(body)
        if self._left is not None:
            self._join(self._left)

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Keep what came with the head."""
        self._pieces.append(payload)

    def end(self, *, by_close: bool) -> None:
        """The rest is whole."""
        self._whole = True

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """It does not go on there; if it has left the old engine, it is broken."""
        self.connection = None
        if down:
            self._gateway.lost(self.engine)
        if self._left is None:
            self._stay(reason)
        else:
            self._settle()
            self._exchange.on_broken(reason, why, down=down)

    def _join(self, stream: EventStream) -> None:
        """Let the exchange go on with what comes from here."""
        self._settle()
        if self.connection is not None:
            self.connection.hand_to(self._exchange, stream)
        for piece in self._pieces:
            stream.payload(piece)
        if self._whole and not self._exchange.ended:
            stream.end(by_close=False)
        elif self._exchange.client.stalled:
            self._exchange.pause()
        else:
            self._exchange.resume()

    def _settle(self) -> None:
        """From now on the answer is this engine's."""
        self._alarm.cancel()
        exchange = self._exchange
        exchange.moving, exchange.engine = None, self.engine
        self._gateway.metrics.moves["moved"] += 1
        self._gateway.tell(Moved(self._gateway.now_s(), exchange.request.id, self.engine.id))

    def _stay(self, reason: str) -> None:
        """The answer goes on where it was."""
        exchange = self._exchange
        if self._left is not None:
            self.close()
            self._settle()
            exchange.on_broken(reason, "the engine that was to go on with the answer does not")
            return
        self.close()
        exchange.moving = None
        self._gateway.metrics.moves[reason] += 1
        if exchange.engine is not None:
            self._gateway.tell(Moved(self._gateway.now_s(), exchange.request.id, exchange.engine.id))

    def _too_late(self) -> None:
        self._stay("timeout")


def move(gateway: Gateway, exchange: Exchange, engine: Engine, where: dict[str, Any] | None) -> bool:
    """Let an answer go on at this engine, which takes it from `where` it is; False if it cannot."""
    streams = exchange.committed and exchange.connection is not None and exchange.kind in USAGE_EVENTS
    if where is None or exchange.moving is not None or not streams:
        return False
    request = exchange.same().to(engine, exchange.wire_id, moving(exchange.request.id, where))
    exchange.moving = Arrival(gateway, exchange, engine, request)
    return True


def _goes_on(head: Head) -> bool:
    return head.status == 200 and head.is_event_stream

"""A request that two engines of SGLang get at once: one computes its prompt, the other waits and answers.

Source: SGLang's disaggregation, as its router speaks it. What the first one answers is of no use, unless
it is an error that comes before the client has seen anything: then the attempt is over for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.core.event import Prefilled
from millrace.gateway.framing import Head
from millrace.gateway.handing import MISSED, Bootstrap, meeting_at, refused
from millrace.gateway.receiver import Answer

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.exchange import Exchange
    from millrace.gateway.upstream import Engine, EngineConnection

LIMIT_BYTES = 64 << 10
"""An error is shorter; what may be longer is thrown away."""


def meet(gateway: Gateway, exchange: Exchange, engine: Engine, answering: Engine, where: Bootstrap) -> None:
    """Send the request to the engine that computes prompts and to the one that answers."""
    field = meeting_at(where, exchange.wire.body, exchange.kind)
    exchange.dispatch(answering, field, Answering(exchange))
    exchange.meeting = Meeting(gateway, exchange, engine, exchange.wire.to(engine, exchange.wire_id, field))


class Meeting:
    """Waits for what the engine that computes the prompt says, beside the one that answers."""

    __slots__ = ("_body", "_engine", "_exchange", "_gateway", "_head", "connection")

    def __init__(self, gateway: Gateway, exchange: Exchange, engine: Engine, request: bytes) -> None:
        self._gateway, self._exchange, self._engine = gateway, exchange, engine
        self._head: Head | None = None
        self._body = b""
        self.connection: EngineConnection | None = engine.send(self, request)

    def close(self) -> None:
        """Let the engine stop. Whatever becomes of the request now is up to the one that answers."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        self._tell_computed()

    def on_head(self, head: Head) -> Meeting:
        """Take the body too."""
        self._head = head
        return self

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Keep what may be an error."""
        if len(self._body) < LIMIT_BYTES:
            self._body += payload

    def end(self, *, by_close: bool) -> None:
        """The answer is there."""
        assert self._head is not None
        self.on_whole(self._head, self._body)

    def on_whole(self, head: Head, body: bytes) -> None:
        """Note that the prompt is computed, or that it cannot be, unless the client has seen otherwise."""
        exchange, event = self._exchange, refused(body) if head.is_event_stream else b""
        if head.status < 400 and not event:
            self._tell_computed()
        elif not exchange.committed:
            self._leave()
            if head.status >= 500:
                exchange.pass_over(head, body)
            elif event:
                said = event.strip().decode(errors="replace")
                exchange.on_broken("no_kv_cache", f"the engine that computes the prompt says {said}")
            else:
                exchange.held(head, body)

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """The prompt will not be computed there."""
        if self._exchange.committed:
            self._exchange.meeting = None
            return
        self._leave()
        self._exchange.on_broken(reason, why, down=down)

    def _leave(self) -> None:
        """The attempt is over, and this engine is to blame."""
        self._exchange.meeting = None
        self._exchange.charge(self._engine)

    def _tell_computed(self) -> None:
        self._gateway.tell(Prefilled(self._gateway.now_s(), self._exchange.request.id))


class Answering:
    """Takes what the engine that answers says for the client's, unless the KV cache has not reached it."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def connection(self) -> EngineConnection | None:
        """The exchange's own."""
        return self._exchange.connection

    @connection.setter
    def connection(self, connection: EngineConnection | None) -> None:
        self._exchange.connection = connection

    def on_head(self, head: Head) -> Answer:
        """Let the beginning be looked at where it may say that the cache did not come."""
        answer = self._exchange.on_head(head)
        return Beginning(self._exchange, head, answer) if _may_miss(head) else answer

    def on_whole(self, head: Head, body: bytes) -> None:
        """Take a complete answer."""
        if _misses(head, body):
            self._exchange.pass_over(head, body)
        else:
            self._exchange.on_whole(head, body)

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """Leave it to the controller where to try again."""
        self._exchange.on_broken(reason, why, down=down)


class Beginning:
    """Looks at the first piece of an answer, and leaves all of it to another one if that is no error."""

    __slots__ = ("_answer", "_exchange", "_head")

    def __init__(self, exchange: Exchange, head: Head, answer: Answer) -> None:
        self._exchange, self._head, self._answer = exchange, head, answer

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        if self._reaches_client(data[start:-2]):
            self._answer.framed(data, start)

    def payload(self, payload: bytes) -> None:
        """Take a piece without its framing."""
        if self._reaches_client(payload):
            self._answer.payload(payload)

    def end(self, *, by_close: bool) -> None:
        """There was nothing in it."""
        self._answer.end(by_close=by_close)

    def _reaches_client(self, piece: bytes) -> bool:
        connection = self._exchange.connection
        assert connection is not None
        if _misses(self._head, piece):
            connection.fail("no_kv_cache", "the engine that answers did not get the KV cache")
            return False
        connection.answer = self._answer
        return True


def _may_miss(head: Head) -> bool:
    return head.status >= 500 or head.is_event_stream


def _misses(head: Head, beginning: bytes) -> bool:
    """Whether an answer is no more than the complaint that the KV cache did not come."""
    if head.status < 400:
        return head.is_event_stream and MISSED in refused(beginning)
    return head.status >= 500 and MISSED in beginning

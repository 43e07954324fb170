"""A prompt that one engine computes for another, which answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from millrace.core.event import Prefilled
from millrace.gateway.framing import Head
from millrace.gateway.handing import handed, prompt_only
from millrace.gateway.meeting import meet
from millrace.gateway.probe import ANSWER_LIMIT_BYTES

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.exchange import Exchange
    from millrace.gateway.fleet import Member
    from millrace.gateway.upstream import Engine, EngineConnection


def prefill(gateway: Gateway, exchange: Exchange, computing: Member, answering: Engine) -> None:
    """Let an engine compute the prompt for another one; where nobody knows how, that one does it all."""
    engine = computing.engine
    body = None if exchange.committed else prompt_only(exchange.wire.body, exchange.kind)
    if body is None:
        gateway.tell(Prefilled(gateway.now_s(), exchange.request.id))
        exchange.dispatch(answering)
    elif computing.bootstrap is not None:
        meet(gateway, exchange, engine, answering, computing.bootstrap)
    else:
        asked = replace(exchange.wire, body=body).to(engine, exchange.wire_id)
        exchange.send(engine, Prefill(gateway, exchange, answering), asked)


def alone(exchange: Exchange, member: Member) -> None:
    """Let an engine compute the prompt that it answers, unless it cannot."""
    if member.only_answers and exchange.kind in ("chat", "text"):
        exchange.charge(member.engine)
        exchange.on_broken(
            "no_prefill", "SGLang's engines that answer compute no prompts, and none that does is ready"
        )
    else:
        exchange.dispatch(member.engine)


class Prefill:
    """Waits for the engine that computes the prompt, then sends the request on to the one that answers.

    It is the exchange's connection that is waited for, so that giving up, silence and leaving are one thing.
    """

    __slots__ = ("_answering", "_body", "_exchange", "_gateway", "_head")

    def __init__(self, gateway: Gateway, exchange: Exchange, answering: Engine) -> None:
        self._gateway, self._exchange, self._answering = gateway, exchange, answering
        self._head: Head | None = None
        self._body = b""

    @property
    def connection(self) -> EngineConnection | None:
        """The exchange's own."""
        return self._exchange.connection

    @connection.setter
    def connection(self, connection: EngineConnection | None) -> None:
        self._exchange.connection = connection

    def on_head(self, head: Head) -> Prefill:
        """Take the body too."""
        self._head = head
        return self

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Collect what says where the cache is."""
        self._body += payload
        if len(self._body) > ANSWER_LIMIT_BYTES and self.connection is not None:
            self.connection.fail("garbage", f"a prompt's answer has more than {ANSWER_LIMIT_BYTES} bytes")

    def end(self, *, by_close: bool) -> None:
        """The answer is there."""
        assert self._head is not None
        self.on_whole(self._head, self._body)

    def on_whole(self, head: Head, body: bytes) -> None:
        """Send the request on, or take the answer for the client's if it is an error."""
        if head.status >= 400:
            self._exchange.held(head, body)
        elif (field := handed(body)) is None:
            self.on_broken("no_kv_cache", "the engine kept no KV cache for another one")
        else:
            self._gateway.tell(Prefilled(self._gateway.now_s(), self._exchange.request.id))
            if not self._exchange.ended:
                self._exchange.dispatch(self._answering, field)

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """Leave it to the controller where to try again."""
        self._exchange.on_broken(reason, why, down=down)

"""One client's request on its way: sent where the controller says, until it ended one way or another."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from millrace.core.event import Cancelled, Failed, Finished, Refuse, Started
from millrace.core.prompt import Asked, Kind
from millrace.gateway import errors
from millrace.gateway.answers import HELD_LIMIT_BYTES, EventStream, HeldAnswer, PassedAnswer
from millrace.gateway.counted import Counted
from millrace.gateway.errors import Fault
from millrace.gateway.framing import Head
from millrace.gateway.metrics import Series, outcome_of
from millrace.gateway.moving import Arrival
from millrace.gateway.receiver import Answer, Receiver
from millrace.gateway.renaming import Renaming
from millrace.gateway.upstream import Engine, EngineConnection
from millrace.gateway.usage import NO_USAGE, USAGE_EVENTS, Usage, usage_of
from millrace.gateway.wire import Wire

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.client import ClientConnection
    from millrace.gateway.meeting import Meeting


class Exchange(Counted):
    """A request in flight, between a client's connection and at most one engine's.

    `name` is the model as the client called it, `model` the one that is to answer. `meeting` is with the
    engine that computes the prompt while another one waits for it.
    """

    __slots__ = (
        "_answer",
        "_fields",
        "_kept",
        "_strip_usage",
        "client",
        "connection",
        "ended",
        "engine",
        "heard_s",
        "kind",
        "meeting",
        "moving",
        "name",
        "wire",
        "wire_id",
    )

    def __init__(
        self, gateway: Gateway, client: ClientConnection, kind: Kind, asked: Asked, wire: Wire
    ) -> None:
        super().__init__(gateway, asked.request)
        self.client, self.kind, self.name = client, kind, asked.name
        self.wire_id = asked.request.id.encode()
        uncounted = asked.stream and not asked.usage_wanted and kind in USAGE_EVENTS
        counting = wire.counting(stream_options=asked.stream_options) if uncounted else None
        self.wire, self._strip_usage = counting or wire, counting is not None
        self.heard_s = self._arrived_s
        self.ended = False
        self._answer: HeldAnswer | PassedAnswer | EventStream | None = None
        self._kept: tuple[Head, bytes] | None = None
        self._fields = b""
        self.engine: Engine | None = None
        self.connection: EngineConnection | None = None
        self.moving: Arrival | None = None
        self.meeting: Meeting | None = None

    @property
    def committed(self) -> bool:
        """Whether the client has the beginning of an answer."""
        return self._answer is not None and self._answer.committed

    # What the controller wants.

    def dispatch(self, engine: Engine, field: bytes = b"", receiver: Receiver | None = None) -> None:
        """Send the request to this engine, with one more `field`, if it needs to know more."""
        self.send(engine, receiver or self, self._outgoing(engine, field))

    def shift(self, engine: Engine) -> None:
        """Send the request to this engine, and not to the one that has not begun to answer it."""
        self._drop_connection()
        if not self.committed:
            self._answer = None
        self.dispatch(engine)

    def send(self, engine: Engine, receiver: Receiver, data: bytes) -> None:
        """Send something to this engine that the receiver waits for, as an attempt at this request."""
        self._kept = None
        self.charge(engine)
        self.connection = engine.send(receiver, data)
        self.heard_s = monotonic()
        self._count_sent(self.heard_s)

    def charge(self, engine: Engine) -> None:
        """What comes next is this engine's doing."""
        self.engine = engine
        ours = self.guarded.fields if self.guarded else b""
        self._fields = engine.answer_fields(self.model) + ours
        self._series = self._gateway.metrics.series(self.model, engine.id)

    def turn(self, model: str) -> None:
        """From now on the request is for this fallback."""
        if model != self.model:
            self.model, self.wire = model, self.wire.asking(model)
            self._gateway.metrics.fallbacks[model] += 1

    def renaming(self) -> Renaming | None:
        """Return what gives the model the client's name for it, None if that is its own."""
        if self.model == self.name or not self._gateway.settings.answer_as_asked:
            return None
        return Renaming(self.model, self.name)

    def cancel(self, replica: str) -> None:
        """Stop the engine's work, if it is this replica's."""
        if self.engine is not None and self.engine.id == replica:
            self._drop_connection()

    def refuse(self, action: Refuse) -> None:
        """Answer with an error: the one an engine gave if there is one, else the controller's."""
        if self.committed:
            self.cut(action.why, "refused")
        elif self._kept is not None:
            head, body = self._kept
            self._end("engine_error", head.status)
            self._deliver(head, body)
        else:
            self._end("refused", action.status)
            self._answer_with(errors.refused(action))

    def cut(self, why: str, outcome: str) -> None:
        """End a request whatever its state, telling the client why as well as can be."""
        self._end(outcome, 503)
        self._tell_client(why)

    # What the engine does.

    def on_head(self, head: Head) -> Answer:
        """Choose how the answer is passed on."""
        self.heard_s = monotonic()
        if head.is_event_stream and head.status < 400:
            self._answer = self._stream(head)
        elif head.length is not None and head.length > HELD_LIMIT_BYTES:
            self._answer = PassedAnswer(self, head)
        else:
            self._answer = HeldAnswer(self, head)
        return self._answer

    def on_whole(self, head: Head, body: bytes) -> None:
        """Take a complete answer."""
        if head.is_event_stream and head.status < 400:
            answer = self._answer = self._stream(head)
            answer.payload(body)
            if not self.ended:
                answer.end(by_close=False)
        else:
            self.held(head, body)

    def overflow(self, answer: PassedAnswer) -> None:
        """Let this take the rest of an answer too large to hold."""
        if self.connection is not None:
            self._answer = self.connection.answer = answer

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """Leave it to the controller where to try again; a client that saw the beginning is told at once."""
        self._drop_connection()
        if down and self.engine is not None:
            self._gateway.lost(self.engine)
        if self.committed:
            self._break_off(reason, why, down=down)
            return
        self._answer = None
        self._failed_by = reason
        self._gateway.tell(Failed(self._gateway.now_s(), self.request.id, why, replica_down=down))

    def begun(self, now_s: float) -> None:
        """The answer begins to reach the client."""
        self._gateway.tell(Started(now_s - self._gateway.origin_s, self.request.id))

    def first_token(self, now_s: float) -> None:
        """A stream's first token came."""
        self._count_first(now_s)
        self.begun(now_s)

    def opening(self, head: Head, fields: bytes) -> bytes:
        """Return the head of an answer whose body follows bit by bit; `fields` say how it is framed."""
        close = b"connection: close\r\n" if self.client.closing else b""
        ours = b"x-request-id: %b\r\n%b%b%b" % (self.wire_id, self._fields, fields, close)
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.reason, head.fields, ours)

    def held(self, head: Head, body: bytes) -> None:
        """A whole answer came: pass it on, or keep it while the controller looks for a better one."""
        if head.wanders:
            self.pass_over(head, body)
            return
        self._finish(head.status, usage_of(body) if head.is_json else NO_USAGE, begins=head.status < 400)
        self._deliver(head, body)

    def pass_over(self, head: Head, body: bytes) -> None:
        """Keep an engine's error while the controller looks for a better answer."""
        self._kept = (head, body) if head.is_json else None
        self.on_broken(f"status_{head.status}", f"the engine answered with status {head.status}")

    def finished(self, status: int, usage: Usage, *, events: int = 0, complete: bool = True) -> None:
        """The answer was passed on to its end."""
        if not complete:
            self._gateway.metrics.unfinished_streams += 1
        self._count_pace(usage.output_tokens or events)
        self._finish(status, usage)
        self.client.done()

    # What the client does.

    def client_gone(self) -> None:
        """Free the engine at once; nobody reads the answer."""
        now_s = self._gateway.now_s()
        self._gateway.metrics.aborted["client"] += 1
        self._count_dropped("rejected-context-cancelled" if self.engine is None else None)
        self._end("client_cancelled", None)
        self._gateway.tell(Cancelled(now_s, self.request.id))

    def pause(self) -> None:
        """The client reads too slowly: leave the answer with the engine."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self.connection is not None:
            self.connection.resume()

    def _break_off(self, reason: str, why: str, *, down: bool) -> None:
        """Give up on an answer of which the client has the beginning."""
        self._end("upstream_failed", 502)
        now_s, request_id = self._gateway.now_s(), self.request.id
        self._gateway.tell(Failed(now_s, request_id, why, retryable=False, replica_down=down))
        self._tell_client(why)

    def _outgoing(self, engine: Engine, field: bytes) -> bytes:
        return self.wire.to(engine, self.wire_id, field)

    def same(self) -> Wire:
        """Return the request as the engine got it that began to answer."""
        return self.wire

    def _stream(self, head: Head) -> EventStream:
        return EventStream(self, head, strip_usage=self._strip_usage)

    def _deliver(self, head: Head, body: bytes) -> None:
        close, reason, fields = self.client.closing, head.reason, head.fields + self._fields
        if head.is_json and head.status < 400 and (renaming := self.renaming()):
            body = renaming(body)
        self.client.respond(errors.whole(head.status, fields, body, self.wire_id, close=close, reason=reason))

    def _tell_client(self, why: str) -> None:
        answer = self._answer
        if answer is not None and answer.committed:
            self._gateway.metrics.aborted["engine"] += 1
            answer.cut(why)
            self.client.done()
        else:
            self._answer_with(errors.ending(why, sent=self.engine is not None))

    def _answer_with(self, fault: Fault) -> None:
        self._count_dropped(fault.dropped)
        self.client.respond(errors.answer(fault, self.wire_id, kind=self.kind, close=self.client.closing))

    def _finish(self, status: int, usage: Usage, *, begins: bool = False) -> None:
        """Count the answer and tell the controller of its end; of its beginning too if both came at once."""
        series = self._end(outcome_of(status), status if status >= 400 else None)
        series.count_tokens(usage.prompt_tokens, usage.output_tokens, usage.cached_tokens)
        self._count_length(usage)
        now_s, name = self._gateway.now_s(), self.request.id
        finished = Finished(now_s, name, usage.prompt_tokens, usage.output_tokens, usage.cached_tokens)
        if begins:
            self._gateway.tell(Started(now_s, name), finished)
        else:
            self._gateway.tell(finished)

    def _end(self, outcome: str, status: int | None) -> Series:
        """Forget the request; whatever comes for it now comes too late."""
        self.ended = True
        self._drop_connection()
        self._gateway.exchanges.pop(self.request.id, None)
        return self._count_end(outcome, status)

    def _drop_connection(self) -> None:
        moving, meeting, connection = self.moving, self.meeting, self.connection
        self.moving = self.meeting = self.connection = None
        for beside in (moving, meeting):
            if beside is not None:
                beside.close()
        if connection is not None:
            connection.abort()

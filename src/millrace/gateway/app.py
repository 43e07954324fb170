"""The gateway between both sides: tells the controller what happened and performs what it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Protocol

from msgspec import UNSET
from msgspec.structs import replace

from millrace.core.event import (
    Action,
    Arrived,
    CacheChanged,
    Cancel,
    Cancelled,
    Dispatch,
    Event,
    Move,
    Moved,
    Refuse,
    Reported,
    Ticked,
)
from millrace.core.fleet import Waiting
from millrace.core.prompt import InvalidRequestError, Kind, describe
from millrace.gateway import errors
from millrace.gateway.admin import Admin
from millrace.gateway.client import ClientConnection
from millrace.gateway.errors import Fault
from millrace.gateway.exchange import Exchange
from millrace.gateway.failover import ResumableExchange
from millrace.gateway.fleet import Fleet, way_between
from millrace.gateway.guarding import Guarding
from millrace.gateway.ids import RequestIds, session_of, slo_of, text_of, urgency_of
from millrace.gateway.journal import Journal
from millrace.gateway.local import answer_locally
from millrace.gateway.metrics import Metrics
from millrace.gateway.moving import move
from millrace.gateway.names import Names
from millrace.gateway.prefilling import alone, prefill
from millrace.gateway.request import Incoming
from millrace.gateway.resuming import resumable
from millrace.gateway.routes import COUNT_TOKENS, INFERENCE, path_of
from millrace.gateway.settings import GatewaySettings
from millrace.gateway.tokens import NO_TOKENIZERS, Question, Tokenizer, Tokens
from millrace.gateway.upstream import Engine
from millrace.gateway.wire import Wire
from millrace.gateway.wording import Wording

SHUTTING_DOWN = errors.ending("the gateway is shutting down", sent=False)


class Mind(Protocol):
    """What decides for the gateway: a `control.Controller`."""

    def on(self, event: Event) -> list[Action]:
        """Note what happened; return what is to be done."""

    def next_deadline_s(self) -> float | None:
        """When a Ticked is due."""

    def prefix_index_bytes(self) -> dict[str, int]:
        """Memory that the prefix index of each replica takes."""

    def waiting(self, now_s: float) -> Sequence[Waiting]:
        """Who is held, by model, priority and tenant."""


class Gateway:
    """One gateway: its engines, the requests in flight, and the conversation with the controller.

    Must be made inside the event loop it runs on.
    """

    def __init__(
        self, settings: GatewaySettings, controller: Mind, tokenizers: Mapping[str, Tokenizer] = NO_TOKENIZERS
    ) -> None:
        self.settings = settings
        self.fleet = Fleet(settings)
        self.metrics = Metrics()
        self.exchanges: dict[str, Exchange] = {}
        self.clients: set[ClientConnection] = set()
        self.draining = False
        self.port = settings.port
        self.admin = Admin(self)
        self.journal: Journal | None = None
        self.wording: Wording | None = None
        self.guarding: Guarding | None = None
        self.remembered_bytes = 0
        self.origin_s = monotonic()
        self.controller = controller
        self._tokens = (
            Tokens(self.fleet, self.metrics, settings, tokenizers) if settings.block_tokens else None
        )
        self._asking: set[asyncio.Task[None]] = set()
        self._ids = RequestIds()
        self._names = Names(settings.aliases, settings.fallbacks)
        self._served = self._model_for if settings.aliases else None
        self._events: deque[Event] = deque()
        self._telling = False
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s: float | None = None

    @property
    def remembers(self) -> bool:
        """Whether there is memory left for what it takes to go on with one more stream elsewhere."""
        return self.remembered_bytes < self.settings.failover_bytes

    def now_s(self) -> float:
        """Seconds since the gateway began: the clock of every event."""
        return monotonic() - self.origin_s

    def known_model(self, model: str) -> str:
        """Return the model if some engine serves it: a bounded set, fit for a label."""
        return model if model in self.fleet.catalogue else "unknown"

    def tell(self, *events: Event) -> None:
        """Tell the controller, and do what it says. What happens meanwhile waits for its turn."""
        self._events.extend(events)
        if self._telling:
            return
        self._telling = True
        try:
            while self._events:
                for action in self._decide(self._events.popleft()):
                    self._perform(action)
        finally:
            self._telling = False
        due_s = self.controller.next_deadline_s()
        if due_s != self._alarm_s:
            self._set_alarm(due_s)

    def accept(self, client: ClientConnection, incoming: Incoming) -> None:
        """Answer a request that was read in full, or send it on its way."""
        path, query = path_of(incoming.target)
        kind = INFERENCE.get(path)
        if incoming.fault is not None or kind is None or incoming.method != b"POST":
            answer_locally(self, client, incoming, path, self.id_for(incoming).encode())
        elif self.draining:
            request_id = self.id_for(incoming).encode()
            client.respond(errors.answer(SHUTTING_DOWN, request_id, kind=kind, close=True))
        else:
            self._begin(client, incoming, Wire(path, query, b"".join(incoming.lines), incoming.body), kind)

    def id_for(self, incoming: Incoming) -> str:
        """Return the id that a request goes by."""
        return self._ids.choose(incoming.noted, self.exchanges)

    def lost(self, engine: Engine) -> None:
        """An engine cannot be reached; the controller learns it from the failed request."""
        self.fleet.members[engine.id].lose()

    def end_all(self, why: str) -> None:
        """Give up on whatever is still in flight; first on who is held, lest it is sent while others end."""
        for exchange in sorted(self.exchanges.values(), key=lambda one: one.engine is not None):
            self.tell(Cancelled(self.now_s(), exchange.request.id))
            exchange.cut(why, "drained")

    def close(self) -> None:
        """Drop every connection and forget the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._asking:
            task.cancel()
        for client in (*self.clients, *self.admin.clients):
            client.cut()
        for member in self.fleet.members.values():
            member.engine.close()

    def _begin(self, client: ClientConnection, incoming: Incoming, wire: Wire, kind: Kind) -> None:
        noted, request_id = incoming.noted, self.id_for(incoming)
        if noted.get(b"x-stainless-retry-count", b"0") != b"0":
            self.metrics.client_retries += 1
        try:
            asked = describe(
                incoming.body,
                kind,
                id=request_id,
                tenant=text_of(noted, b"x-tenant-id"),
                session=session_of(noted),
                slo=slo_of(noted),
                measure=self.settings.measure,
                served=self._served,
            )
            if urgency := urgency_of(noted, self.now_s()):
                asked = replace(asked, request=replace(asked.request, **urgency))
        except InvalidRequestError as error:
            self.metrics.errors["unknown", "400"] += 1
            fault = Fault(400, str(error), error.param)
            client.respond(errors.answer(fault, request_id.encode(), kind=kind, close=client.closing))
            return
        model = asked.request.model
        if self.wording is not None:
            asked = replace(asked, request=self.wording.read(asked.request, kind, incoming.body))
        if fallbacks := self._names.fallbacks.get(model):
            asked = replace(asked, request=replace(asked.request, fallbacks=fallbacks))
        if wire.target == COUNT_TOKENS:
            asked = replace(asked, request=replace(asked.request, max_tokens=0))
        if model != asked.name:
            wire = wire.asking(model)
        guarded = self.guarding and self.guarding.read(asked.request, kind, wire)
        if guarded:
            wire = guarded[1]
            asked = replace(asked, request=guarded[0].limited(asked.request))
        how = resumable(incoming.body, kind) if asked.stream and self.settings.failover else None
        if how is None:
            exchange = Exchange(self, client, kind, asked, wire)
        else:
            exchange = ResumableExchange(self, client, kind, asked, wire, how=how)
        exchange.guarded = guarded[0] if guarded else None
        self.exchanges[request_id] = client.current = exchange
        question = self._tokens and self._tokens.question(asked.request, kind, incoming.body)
        if question:
            task = self._loop.create_task(self._arrive_with_tokens(exchange, question))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:
            self._arrive(exchange)

    async def _arrive_with_tokens(self, exchange: Exchange, question: Question) -> None:
        """Let a request wait until its tokens are known, for no longer than is set; its client may leave."""
        assert self._tokens is not None
        exchange.request = await self._tokens.found(exchange.request, question)
        if not exchange.ended:
            self._arrive(exchange)

    def _arrive(self, exchange: Exchange) -> None:
        self.tell(Arrived(self.now_s(), exchange.request))
        exchange.fresh = False

    def _model_for(self, name: str, who: str) -> str:
        return self._names.model_for(name, who, self.fleet.catalogue)

    def _decide(self, event: Event) -> list[Action]:
        try:
            actions = self.controller.on(event)
        except Exception as error:  # a policy is its user's code: its bug must cost one request, not all
            self._loop.call_exception_handler({"message": "the controller failed", "exception": error})
            return self._after_bug(event)
        if self.journal is not None:
            self.journal.note(event, actions)
        return actions

    def _after_bug(self, event: Event) -> list[Action]:
        if isinstance(event, Reported | CacheChanged | Ticked | Cancelled):
            return []
        request_id = event.request.id if isinstance(event, Arrived) else event.request_id
        self._events.append(Cancelled(self.now_s(), request_id))
        return [Refuse(request_id, "the gateway's policy failed", 500)]

    def _perform(self, action: Action) -> None:
        exchange = self.exchanges.get(action.request_id)
        if exchange is None:
            return
        if isinstance(action, Dispatch):
            if action.model is not UNSET:
                exchange.turn(action.model)
            member = self.fleet.members[action.replica]
            if action.prefill_on is UNSET:
                alone(exchange, member)
            else:
                prefill(self, exchange, self.fleet.members[action.prefill_on], member.engine)
        elif isinstance(action, Move):
            self._move(action, exchange)
        elif isinstance(action, Cancel):
            exchange.cancel(action.replica)
        else:
            exchange.refuse(action)

    def _move(self, action: Move, exchange: Exchange) -> None:
        source, target = self.fleet.members[action.source], self.fleet.members[action.replica]
        if not action.running:
            exchange.shift(target.engine)
        elif action.replayed and isinstance(exchange, ResumableExchange) and exchange.leave(target.engine):
            self.metrics.moves["replayed"] += 1
        elif action.replayed or not move(self, exchange, target.engine, way_between(source, target)):
            self.metrics.moves["unable"] += 1
            self.tell(Moved(self.now_s(), action.request_id, action.source))

    def _set_alarm(self, due_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = due_s
        self._alarm = (
            None if due_s is None else self._loop.call_later(max(0.0, due_s - self.now_s()), self._ring)
        )

    def _ring(self) -> None:
        self._alarm = self._alarm_s = None
        self.tell(Ticked(self.now_s()))

"""Deficit round robin: tenants take turns, and in each turn may send `quantum_tokens` of prompts.

What a tenant does not use up is kept for its next turn as long as it has somebody waiting. A request is
charged with those of its prompt's tokens that are not in the prefix cache where it is sent. Two tenants that
both wait all the time never differ by more than a quantum and two of the longest prompts, per weight.

Answers cost nothing here; `vtc` charges them too.

Source: Shreedhar and Varghese, Efficient Fair Queueing Using Deficit Round Robin (SIGCOMM 1995); the queue of
NVIDIA Dynamo's router, whose quantum is charged in uncached tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from millrace.core.event import Event
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.request import Request
from millrace.core.rounds import Rounds, Turn
from millrace.core.tenants import TenantLines, check_weights


@dataclass(slots=True)
class Policy:
    """`weights` multiply the quantum of a tenant; who is not named has 1."""

    fair: ClassVar[bool] = True
    quantum_tokens: int = 2048
    weights: Mapping[str, float] = field(default_factory=dict)
    _lines: TenantLines = field(init=False, repr=False, compare=False, default_factory=TenantLines)
    _rounds: dict[str, Rounds] = field(init=False, repr=False, compare=False, default_factory=dict)
    _left: tuple[Request, Turn | None] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.quantum_tokens < 1:
            raise ValueError(f"quantum_tokens is {self.quantum_tokens}; it must be at least 1")
        check_weights(self.weights)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        waiting = list(held)
        return waiting if len(waiting) < 2 else self._in_turns(waiting)

    def first(self, model: str, fleet: FleetView) -> str | None:
        turn = self._turn(model)
        head = None if turn is None else self._lines.head(model, turn.tenant)
        return None if head is None else head.id

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Keep track of who waits, and charge what is sent."""
        if self._left is not None:
            left, self._left = self._left, None
            self._settle(*left, fact if isinstance(fact, Sent) else None)
        if isinstance(fact, Held):
            self._lines.note(fact)
            rounds = self._rounds.setdefault(fact.request.model, self._new())
            if fact.request.tenant not in rounds:
                rounds.enter(fact.request.tenant)
        elif isinstance(fact, Left):
            turn = self._turn(fact.request.model)
            named = None if turn is None else self._lines.head(fact.request.model, turn.tenant)
            self._left = fact.request, turn if named is not None and named.id == fact.request.id else None
            self._lines.note(fact)

    def _settle(self, left: Request, turn: Turn | None, sent: Sent | None) -> None:
        """Count a request that left as sent or as gone; forget a tenant that waits for nothing."""
        rounds = self._rounds[left.model]
        if sent is not None and sent.request.id == left.id:
            if turn is not None:
                rounds.take(turn)
            rounds.charge(left.tenant, sent.queued_tokens)
        if self._lines.head(left.model, left.tenant) is None:
            rounds.leave(left.tenant)
        if not rounds:
            del self._rounds[left.model]

    def _turn(self, model: str) -> Turn | None:
        if model not in self._rounds:
            return None
        heads = {tenant: self._lines.head(model, tenant) for tenant in self._lines.tenants(model)}
        costs = {tenant: head.prompt_tokens for tenant, head in heads.items() if head is not None}
        return self._rounds[model].turn(costs)

    def _in_turns(self, waiting: list[Request]) -> Iterator[Request]:
        """Play the turns of a model's requests, from how they stand now."""
        known = self._rounds.get(waiting[0].model)
        rounds = self._new() if known is None else known.copy()
        lines: dict[str, list[Request]] = {}
        for request in waiting:
            lines.setdefault(request.tenant, []).append(request)
            if request.tenant not in rounds:
                rounds.enter(request.tenant)
        while turn := rounds.turn({tenant: line[0].prompt_tokens for tenant, line in lines.items()}):
            request = lines[turn.tenant].pop(0)
            yield request
            rounds.take(turn)
            rounds.charge(turn.tenant, request.prompt_tokens)
            if not lines[turn.tenant]:
                del lines[turn.tenant]
                rounds.leave(turn.tenant)

    def _new(self) -> Rounds:
        return Rounds(self.quantum_tokens, self.weights)

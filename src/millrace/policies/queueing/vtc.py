"""Virtual token counters: the tenant that was served least goes first, by tokens of prompts and answers.

Each tenant's counter grows by its prompt's tokens when a request is sent, and by `answer_weight` for each
token of an answer when it ends, both divided by the tenant's weight. A tenant that comes back after having
had nothing to wait for is lifted to the lowest counter of those who wait, so that idleness saves up nothing.

Two tenants that both wait all the time are served alike, whatever they ask: their service, counted as it is
charged and per weight, never differs by more than twice what all requests that may be under way at a time are
charged together. That is within the published 2 max(w_p L, w_q M), where M is how many tokens, prompts and
answers, run at a time. An answer that breaks off is charged as long as the mean of those so far, or, before
there is one, as `max_tokens`.

The published counters grow with every token as engines compute it; a gateway learns what an answer took when
it ends.

Source: Fairness in Serving Large Language Models (Sheng et al., OSDI 2024), algorithm 2 and theorem 4.4, with
weights as in its section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from msgspec import Struct

from millrace.core.event import Cancelled, Event, Failed, Finished, Started
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.ranked import Ranked
from millrace.core.request import Request
from millrace.core.tenants import TenantLines, check_weights

FEW_ACCOUNTS = 64
MOST_IDLE = 1024  # tenants that ask for nothing; anybody may invent more


class Account(Struct):
    """What a tenant was charged per weight, and how many of its requests are held, and under way."""

    charged: float = 0.0
    held: int = 0
    sent: int = 0


class Underway(Struct):
    """A request that was sent."""

    tenant: str
    max_tokens: int
    started: bool = False


@dataclass(slots=True)
class Policy:
    """`weights` are shares by tenant, 1 for who is not named; the others are what a token counts for."""

    fair: ClassVar[bool] = True
    prompt_weight: float = 1.0
    answer_weight: float = 2.0
    weights: Mapping[str, float] = field(default_factory=dict)
    _lines: TenantLines = field(init=False, repr=False, compare=False, default_factory=TenantLines)
    _accounts: dict[str, Account] = field(init=False, repr=False, compare=False, default_factory=dict)
    _waiting: Ranked = field(init=False, repr=False, compare=False, default_factory=Ranked)
    _turns: dict[str, Ranked] = field(init=False, repr=False, compare=False, default_factory=dict)
    _sent: dict[str, Underway] = field(init=False, repr=False, compare=False, default_factory=dict)
    _last: str = field(init=False, repr=False, compare=False, default="")
    _answers: int = field(init=False, repr=False, compare=False, default=0)
    _answer_tokens: int = field(init=False, repr=False, compare=False, default=0)
    _tidy_at: int = field(init=False, repr=False, compare=False, default=FEW_ACCOUNTS)

    def __post_init__(self) -> None:
        for name in ("prompt_weight", "answer_weight"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number from 0")
        check_weights(self.weights)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda request: self.charged(request.tenant))

    def first(self, model: str, fleet: FleetView) -> str | None:
        tenant = self._turns[model].first() if model in self._turns else None
        head = None if tenant is None else self._lines.head(model, tenant)
        return None if head is None else head.id

    def charged(self, tenant: str) -> float:
        """Return a tenant's counter."""
        account = self._accounts.get(tenant)
        return 0.0 if account is None else account.charged

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Charge what is served to who asked for it, and keep track of who waits."""
        if isinstance(fact, Held):
            self._hold(fact)
        elif isinstance(fact, Left):
            self._leave(fact)
        elif isinstance(fact, Sent):
            if not fact.moved:
                self._send(fact.request)
        elif isinstance(fact, Started):
            if fact.request_id in self._sent:
                self._sent[fact.request_id].started = True
        elif isinstance(fact, Finished):
            self._end(fact.request_id, fact.output_tokens)
        elif isinstance(fact, Failed | Cancelled):
            self._end(fact.request_id, None, broken=True)

    def _hold(self, fact: Held) -> None:
        request = fact.request
        account = self._lifted(request.tenant)
        account.held += 1
        self._lines.note(fact)
        self._rank(request.tenant, account)

    def _leave(self, fact: Left) -> None:
        tenant, model = fact.request.tenant, fact.request.model
        account = self._accounts[tenant]
        account.held -= 1
        self._lines.note(fact)
        if self._lines.head(model, tenant) is None:
            self._turns[model].discard(tenant)
            if not self._turns[model]:
                del self._turns[model]
        if not account.held:
            self._waiting.discard(tenant)
            self._last = tenant
        self._rank(tenant, account)

    def _send(self, request: Request) -> None:
        account = self._lifted(request.tenant)
        if request.id not in self._sent:
            account.sent += 1
        self._sent[request.id] = Underway(request.tenant, request.max_tokens)
        self._charge(request.tenant, account, self.prompt_weight * request.prompt_tokens)

    def _end(self, request_id: str, answered: int | None, *, broken: bool = False) -> None:
        ended = self._sent.pop(request_id, None)
        if ended is None:
            return
        account = self._accounts[ended.tenant]
        account.sent -= 1
        if answered is not None:
            self._answers, self._answer_tokens = self._answers + 1, self._answer_tokens + answered
            self._charge(ended.tenant, account, self.answer_weight * answered)
        elif not broken or ended.started:
            self._charge(ended.tenant, account, self.answer_weight * self._guess(ended.max_tokens))

    def _guess(self, max_tokens: int) -> float:
        return min(max_tokens, self._answer_tokens / self._answers) if self._answers else max_tokens

    def _charge(self, tenant: str, account: Account, tokens: float) -> None:
        account.charged += tokens / self.weights.get(tenant, 1.0)
        self._rank(tenant, account)

    def _rank(self, tenant: str, account: Account) -> None:
        """Put a tenant in its place among those who wait, over all and for each model."""
        if account.held:
            self._waiting.put(tenant, account.charged)
            for model in self._lines.models(tenant):
                rank = (account.charged, self._lines.number(model, tenant))
                self._turns.setdefault(model, Ranked()).put(tenant, rank)

    def _lifted(self, tenant: str) -> Account:
        """Return the account of who asks for something, which has saved up nothing."""
        account = self._accounts.get(tenant)
        if account is None:
            self._tidy()
            account = self._accounts[tenant] = Account()
        if not account.held:
            account.charged = max(account.charged, self._floor())
        return account

    def _floor(self) -> float:
        """The lowest counter of those who wait; if nobody does, that of who did last."""
        lowest = self._waiting.first_rank()
        return self.charged(self._last) if lowest is None else float(lowest)

    def _tidy(self) -> None:
        """Forget tenants that would be lifted anyhow, and of other idle ones all but those charged most."""
        if len(self._accounts) < self._tidy_at:
            return
        floor = self._floor()
        idle = [
            (one.charged, tenant)
            for tenant, one in self._accounts.items()
            if not one.held and not one.sent and tenant != self._last
        ]
        for place, (charged, tenant) in enumerate(sorted(idle, reverse=True)):
            if charged <= floor or place >= MOST_IDLE:
                del self._accounts[tenant]
        self._tidy_at = max(FEW_ACCOUNTS, 2 * len(self._accounts))

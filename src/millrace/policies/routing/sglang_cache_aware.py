"""Send the request to who was last sent most of its prompt, unless the load is out of balance.

Out of balance means that the most loaded replica has over `balance_abs_threshold` requests more than the
least loaded one, and over `balance_rel_threshold` times as many; then, and for a prompt of which no more than
`cache_threshold` is known, the least loaded replica serves, of several the one that was sent the fewest.
Whoever serves is remembered to hold the prompt. Every `eviction_interval_s`, each replica forgets what it was
sent longest ago until it holds `max_tree_tokens`; besides, all of them together take at most `budget_bytes`.

If the replica that matched cannot serve, its comment promises the least loaded one, and that is what happens
here. As published the first healthy worker serves and nothing is remembered, so that all prompts of a dead
worker herd onto one until the load is out of balance: `dead_match_to_first` brings that back, and that nobody
who is gone is ever forgotten. The thresholds on KV cache usage are left out: they are off by default.

Defaults are those of the Python command line; those of the Rust gateway are a `cache_threshold` of 0.5,
a `balance_abs_threshold` of 32, a `balance_rel_threshold` of 1.1, 30 s and 10,000 tokens.

Source: SMG (73da68c) `cache_aware`, which was SGLang's router before, over whole blocks of tokens as its
token tree; that the last tenant of a node is the one that was sent it last is inferred.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from millrace.core.draw import draw_below
from millrace.core.event import Event, Reported
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.period import Period
from millrace.core.prefix_tree import PrefixTree
from millrace.core.request import Request
from millrace.core.sent_prompts import SentPrompts, learn


@dataclass(slots=True)
class Policy:
    """`cache_threshold` is a share of the prompt's blocks; the `balance_` thresholds are about requests."""

    cache_threshold: float = 0.3
    balance_abs_threshold: int = 64
    balance_rel_threshold: float = 1.5
    eviction_interval_s: float = 60.0
    max_tree_tokens: int = 2**26
    budget_bytes: int = 64 << 20
    dead_match_to_first: bool = False
    seed: int = 0
    _tree: PrefixTree = field(init=False, repr=False, compare=False)
    _sent: SentPrompts = field(init=False, repr=False, compare=False, default_factory=SentPrompts)
    _processed: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    _models: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _ready: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _eviction: Period = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.cache_threshold <= 1:
            raise ValueError(f"cache_threshold is {self.cache_threshold}; it is a share of a prompt")
        if not 0 <= self.balance_rel_threshold < inf:
            raise ValueError(f"balance_rel_threshold is {self.balance_rel_threshold}; it must be from 0")
        self._tree = PrefixTree(self.budget_bytes)
        self._eviction = Period(self.eviction_interval_s)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        loads = {replica.id: replica.waiting + replica.running for replica in able}
        least, most = min(loads.values()), max(loads.values())
        spread = most - least > self.balance_abs_threshold and most > self.balance_rel_threshold * least
        matched = None if spread else self._matched(request)
        if matched in loads:
            return Route(matched)
        if matched is not None and self.dead_match_to_first:
            return Route(able[0].id)
        return Route(self._least_loaded(request, loads, least))

    def note(self, fact: Event | Sent) -> None:
        """Learn what was sent where, and who lost what it held; evict when it is time to."""
        news = self._sent.news(fact)
        if isinstance(news, Sent):
            self._processed[news.replica] = self._processed.get(news.replica, 0) + 1
        elif news is not None:
            self._processed.pop(news, None)
        if not self.dead_match_to_first:
            learn(self._tree, news)
        elif isinstance(news, Sent):
            if not self._is_astray(news):
                learn(self._tree, news)
        elif isinstance(fact, Reported):
            self._watch(fact)
        elif news is not None:
            self._ready.pop(news, None)
        if self._eviction.is_over(fact.now_s):
            for name in self._tree.holders():
                self._tree.trim(name, self.max_tree_tokens)

    def _matched(self, request: Request) -> str | None:
        """Who was last sent the longest known beginning of the prompt, if that is enough of it."""
        levels = self._tree.match(request.blocks)
        if levels and levels[-1].blocks > self.cache_threshold * len(request.blocks):
            return next(reversed(levels[-1].holders))
        return None

    def _least_loaded(self, request: Request, loads: dict[str, int], least: int) -> str:
        tied = [(self._processed.get(name, 0), name) for name, load in loads.items() if load == least]
        fewest = min(tied)[0]
        names = [name for processed, name in tied if processed == fewest]
        return names[draw_below(len(names), request.id, self.seed)]

    def _is_astray(self, sent: Sent) -> bool:
        """Whether it went to the first that is healthy, as the one that matched is not."""
        matched = self._matched(sent.request)
        if matched is None or matched in self._ready:
            return False
        model = sent.request.model
        return sent.replica == min((r for r, models in self._ready.items() if model in models), default=None)

    def _watch(self, reported: Reported) -> None:
        """Remember who is healthy, which is not shown when something was sent."""
        name = reported.replica
        if reported.spec is not None:
            self._models[name] = reported.spec.models
        if reported.phase == "ready":
            self._ready[name] = self._models.get(name, ())
        else:
            self._ready.pop(name, None)

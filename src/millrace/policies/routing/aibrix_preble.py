"""Send the request to who holds over half of its prompt, else to who owes the least work to what it holds.

If over `match_threshold` of the prompt is known, the replicas compete that hold the longest part of it; the
one wins that holds what the fewest requests of the last `window_s` asked for. Otherwise the one with the
lowest cost, which adds up over all ends of recent prompts that it holds: the seconds to compute what is new
in them, times how often they were asked for and the share of them that is new, divided by how many replicas
hold them; and `decoding_tokens` for each, at the time that a replica takes for a token.

The seconds come from the replica's own speeds, if known, or else from those of the slowest known replica; the
original's from formulas fitted to Mistral 7B on a V100 or an A6000, whatever the model and the device. If no
speed is known, it is that of its V100, without the constant and the quadratic terms. Its time per token is a
median that nothing ever adds to, so always 0.15 s, which is what is assumed here too. Its code divides by the
number of models that hold a node, not of replicas, which is one: `as_published` brings that back. It forgets
a replica only when the number of ready ones changes, so one that is replaced lives on; here it never does.

Source: AIBrix (0338af7) `prefix-cache-preble`, after Preble (Srivatsa et al., ICLR 2025).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from millrace.core.draw import draw_least
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.prefix_tree import Node, PrefixTree, deepest
from millrace.core.request import Request
from millrace.core.sent_prompts import SentPrompts, learn

ASK_BYTES = 250  # of a node asked for, measured like those of the tree
FRACTION = 1024  # work is counted in so small parts of a token, in integers that add up to nothing again


class Histogram:
    """How often the ends of prompts were asked for of late, added up for the replicas that hold them.

    `load` are these requests, `work` the new tokens of them that are a replica's to compute, in parts of
    which a token has `FRACTION`, and `ends` how many ends there are.
    """

    def __init__(self, window_s: float, most_asks: int, *, shared: bool) -> None:
        self.load: dict[str, int] = {}
        self.work: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self._window_s, self._most_asks, self._shared = window_s, most_asks, shared
        self._asks: deque[tuple[float, Node]] = deque()
        self._counts: dict[Node, int] = {}

    def add(self, node: Node, now_s: float) -> None:
        """Note that a prompt ends here."""
        self._asks.append((now_s, node))
        self._change(node, 1)

    def expire(self, now_s: float) -> None:
        """Forget what was asked for before the window, or before the most that are remembered."""
        asks, start_s = self._asks, now_s - self._window_s
        while asks and (asks[0][0] <= start_s or len(asks) > self._most_asks):
            self._change(asks.popleft()[1], -1)

    def before(self, node: Node) -> None:
        """Take away what the holders owe to a node, as something about it will change."""
        if node in self._counts:
            self._owe(node, -1)

    def after(self, node: Node) -> None:
        """Put it back as it is now."""
        if node in self._counts:
            self._owe(node, 1)

    def _change(self, node: Node, by: int) -> None:
        self.before(node)
        count = self._counts.pop(node, 0) + by
        if count:
            self._counts[node] = count
            self._owe(node, 1)

    def _owe(self, node: Node, sign: int) -> None:
        count, holders = self._counts[node], node.holders
        if not holders:
            return
        work = FRACTION * count * node.tokens * len(node.blocks) // node.end
        if self._shared:
            work //= len(holders)
        for total, each in ((self.load, count), (self.work, work), (self.ends, 1)):
            for holder in holders:
                total[holder] = total.get(holder, 0) + sign * each

    def forget(self, replica: str) -> None:
        """Forget a replica that holds nothing, and so owes nothing."""
        for total in (self.load, self.work, self.ends):
            total.pop(replica, None)


@dataclass(slots=True)
class Policy:
    """Nodes are forgotten if not used for `ttl_s`; tree and window take `budget_bytes` together. The speeds
    hold if none is known.
    """

    match_threshold: float = 0.5
    window_s: float = 180.0
    ttl_s: float = 300.0
    decoding_tokens: int = 45
    assumed_step_s: float = 0.15
    assumed_tokens_per_s: float = 3320.0
    as_published: bool = False
    budget_bytes: int = 64 << 20
    seed: int = 0
    _tree: PrefixTree = field(init=False, repr=False, compare=False)
    _histogram: Histogram = field(init=False, repr=False, compare=False)
    _sent: SentPrompts = field(init=False, repr=False, compare=False, default_factory=SentPrompts)

    def __post_init__(self) -> None:
        if not 0 <= self.match_threshold <= 1:
            raise ValueError(f"match_threshold is {self.match_threshold}; it is a share of a prompt")
        for name in ("assumed_tokens_per_s", "assumed_step_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for_asks = self.budget_bytes // 4
        self._histogram = Histogram(self.window_s, for_asks // ASK_BYTES, shared=not self.as_published)
        self._tree = PrefixTree(self.budget_bytes - for_asks, watcher=self._histogram)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        ranked = self._by_load(request, able) or self._by_cost(able)
        return Route(list(ranked)[draw_least(list(ranked.values()), request.id, self.seed)])

    def note(self, fact: Event | Sent) -> None:
        """Learn what was sent where, and who lost what it held; forget what is over."""
        self._histogram.expire(fact.now_s)
        self._tree.expire(fact.now_s - self.ttl_s)
        news = self._sent.news(fact)
        if isinstance(news, Sent):
            node = self._tree.insert(news.request, news.replica, news.now_s)
            if node is not None:
                self._histogram.add(node, news.now_s)
        elif news is not None:
            learn(self._tree, news)
            self._histogram.forget(news)

    def _by_load(self, request: Request, able: Sequence[ReplicaView]) -> dict[str, float]:
        """Requests for what they hold, of those that hold the longest part of a prompt mostly known."""
        levels = self._tree.match(request.blocks)
        if not levels or levels[-1].blocks <= self.match_threshold * len(request.blocks):
            return {}
        _, holders = deepest(levels, frozenset(replica.id for replica in able))
        return {holder: self._histogram.load.get(holder, 0) for holder in holders}

    def _by_cost(self, able: Sequence[ReplicaView]) -> dict[str, float]:
        """Seconds that replicas owe to what they hold."""
        known_speeds = [speed for r in able if (speed := r.spec.prefill_tokens_per_s)]
        known_steps = [step_s for r in able if (step_s := r.spec.decode_step_s)]
        slowest = min(known_speeds, default=self.assumed_tokens_per_s)
        longest_s = max(known_steps, default=self.assumed_step_s)
        work, ends, costs = self._histogram.work, self._histogram.ends, {}
        for replica in able:
            name, spec = replica.id, replica.spec
            prefill_s = work.get(name, 0) / FRACTION / (spec.prefill_tokens_per_s or slowest)
            decode_s = ends.get(name, 0) * self.decoding_tokens * (spec.decode_step_s or longest_s)
            costs[name] = prefill_s + decode_s
        return costs

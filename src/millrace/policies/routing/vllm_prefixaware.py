"""Send the request to a replica that was sent the longest beginning of its prompt, whatever it is doing.

There is no load term: replicas that hold equally much are drawn from, and one that everybody's system prompt
was sent to keeps everybody. What was sent is kept in a tree of blocks, whose last, incomplete block is not
matched. The original never forgets anything, neither prompts nor endpoints that left; here every map has a
limit, so what was used longest ago is forgotten once the tree takes `budget_bytes`, and a replica that
restarted holds nothing.

Source: vLLM production-stack (a6c01db) `prefixaware`, which matches chunks of 128 characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.core.draw import draw_below
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.prefix_tree import PrefixTree, deepest
from millrace.core.request import Request
from millrace.core.sent_prompts import SentPrompts, learn


@dataclass(slots=True)
class Policy:
    """`budget_bytes` is the memory that the tree may take."""

    budget_bytes: int = 64 << 20
    seed: int = 0
    _tree: PrefixTree = field(init=False, repr=False, compare=False)
    _sent: SentPrompts = field(init=False, repr=False, compare=False, default_factory=SentPrompts)

    def __post_init__(self) -> None:
        self._tree = PrefixTree(self.budget_bytes)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        names = [replica.id for replica in able]
        _, holders = deepest(self._tree.match(request.blocks), frozenset(names))
        among = holders or names
        return Route(among[draw_below(len(among), request.id, self.seed)])

    def note(self, fact: Event | Sent) -> None:
        """Learn what was sent where, and who lost what it held."""
        learn(self._tree, self._sent.news(fact))

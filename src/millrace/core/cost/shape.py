"""The shape of a step, and the protocol of whatever prices it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from msgspec import Struct

# More iterations than any run has: a price that never bends.
ENDLESS = 1_000_000_000


class StepShape(Struct, frozen=True, gc=False):
    """Everything about one iteration that its price depends on.

    `decodes` sequences add one token each to `decode_context_tokens` tokens of KV cache in total;
    `prefills` sequences compute `prefill_tokens` prompt tokens in total, whose attention looks at
    `prefill_attended_tokens` = sum over chunks of c * kv + c * (c + 1) / 2 query-key pairs (c new
    tokens on top of kv cached ones). `emits` sequences leave the step with a new token.

    `decode_longest_tokens` and `decode_shortest_tokens` are the most and the least cache that one of the
    decodes has; 0 is unknown, as they are only counted for a cost model that asks (`needs_lengths`).
    """

    decodes: int = 0
    decode_context_tokens: int = 0
    prefills: int = 0
    prefill_tokens: int = 0
    prefill_attended_tokens: int = 0
    emits: int = 0
    decode_longest_tokens: int = 0
    decode_shortest_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens whose projections are computed."""
        return self.decodes + self.prefill_tokens


def later(shape: StepShape, steps: int) -> StepShape:
    """Return the shape of the iteration so many steps on, if all do the same: each decode has one token more
    for each, and a chunk of a longer prompt is followed by others as long.
    """
    longer = steps if shape.decode_longest_tokens else 0
    return StepShape(
        shape.decodes,
        shape.decode_context_tokens + steps * shape.decodes,
        shape.prefills,
        shape.prefill_tokens,
        shape.prefill_attended_tokens + steps * shape.prefill_tokens**2,
        shape.emits,
        shape.decode_longest_tokens + longer,
        shape.decode_shortest_tokens + longer,
    )


Line = tuple[float, float, int]
"""Of like iterations in a row: seconds of the first, what each takes more than the one before it, and for how
many of them that holds, at least 1."""


class StepTimes(Protocol):
    """Predicts what a step of one replica takes: every cost model does, and whoever learns it."""

    def step_s(self, shape: StepShape) -> float | None:
        """Seconds the iteration takes; None where that is not known."""


class CostModel(Protocol):
    """Prices a step of one replica."""

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws; NaN where the power is not known."""


class BentCost(CostModel, Protocol):
    """A cost model whose price is a straight line of the tokens attended to only from one bend to the next.

    All others are taken to be straight throughout. With `needs_lengths`, the longest and the shortest
    decode of a step are counted for it.
    """

    @property
    def needs_lengths(self) -> bool:
        """Whether the price depends on the longest and the shortest decode."""

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations from `shape` on, then `following`, rise by equal amounts, at least 1."""


class LinearCost(CostModel, Protocol):
    """A cost model that says itself how the price of like iterations rises, faster than by two prices."""

    def line(self, shape: StepShape) -> Line:
        """Return the line on which the prices from `shape` on lie."""


@runtime_checkable
class SharedCost(CostModel, Protocol):
    """A cost model of ranks that split a model's experts, and so wait for each other in every layer."""

    def own_s(self, shape: StepShape) -> float:
        """Seconds of what a rank does by itself in an iteration; an empty one takes none."""

    def experts_s(self, tokens: int) -> float:
        """Seconds of what all ranks do together for the tokens of all of them."""

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        """Joules one rank draws in an iteration of so many seconds, in which all ranks have `tokens`; NaN
        where the power is not known."""


def line_of(cost: CostModel) -> Callable[[StepShape], Line]:
    """Return what says how the price of like iterations rises: the model's own word, or else two prices."""
    own: Callable[[StepShape], Line] | None = getattr(cost, "line", None)
    if own:
        return own
    straight: Callable[[StepShape, StepShape], int] | None = getattr(cost, "straight", None)

    def line(shape: StepShape) -> Line:
        following, first_s = later(shape, 1), cost.step_s(shape)
        most = straight(shape, following) if straight else ENDLESS
        return first_s, cost.step_s(following) - first_s, most

    return line

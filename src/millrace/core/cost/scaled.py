"""A cost model that is off by a factor: what a prediction is worth if its prices are wrong by as much."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from millrace.core.cost.shape import ENDLESS, CostModel, Line, SharedCost, StepShape, line_of


class Scaled:
    """Prices every step at `factor` times what `cost` says; power stays, so energy scales along."""

    def __init__(self, cost: CostModel, factor: float) -> None:
        if not (isfinite(factor) and factor > 0):
            raise ValueError(f"factor is {factor}; it must be a number above 0")
        self.cost = cost
        self.factor = factor
        self.needs_lengths: bool = getattr(cost, "needs_lengths", False)
        self._straight: Callable[[StepShape, StepShape], int] | None = getattr(cost, "straight", None)
        self._line = line_of(cost)

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""
        return self.factor * self.cost.step_s(shape)

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws; NaN where the power is not known."""
        return self.factor * self.cost.step_j(shape)

    def line(self, shape: StepShape) -> Line:
        """Return the line on which the prices from `shape` on lie."""
        first_s, gain_s, most = self._line(shape)
        return self.factor * first_s, self.factor * gain_s, most

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations rise by equal amounts: a factor bends nothing."""
        return self._straight(shape, following) if self._straight else ENDLESS


class ScaledShared(Scaled):
    """The same of ranks that share experts: what each does by itself and what all do together."""

    def __init__(self, cost: SharedCost, factor: float) -> None:
        super().__init__(cost, factor)
        self._shared = cost

    def own_s(self, shape: StepShape) -> float:
        """Seconds of what a rank does by itself in an iteration."""
        return self.factor * self._shared.own_s(shape)

    def experts_s(self, tokens: int) -> float:
        """Seconds of what all ranks do together for the tokens of all of them."""
        return self.factor * self._shared.experts_s(tokens)

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        """Joules one rank draws in an iteration of so many of these longer or shorter seconds."""
        return self.factor * self._shared.rank_j(shape, tokens, seconds / self.factor)


def scaled(cost: CostModel, factor: float) -> Scaled:
    """Return the cost model at `factor` times its prices; ranks of one that can be shared still share it."""
    return ScaledShared(cost, factor) if isinstance(cost, SharedCost) else Scaled(cost, factor)

"""A cost model that is off by a factor: what a prediction is worth if its prices are wrong by as much."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from millrace.core.cost.shape import ENDLESS, CostModel, Line, StepShape, line_of


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

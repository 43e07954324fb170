"""Fits the steps of engines that share a machine: what one costs alone, and how company slows it down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct

from millrace.core.cost import Linear, StepShape, fit

_ROUNDS = 4


class Timed(Struct, frozen=True, kw_only=True):
    """A step that was measured, and how many engines were busy when it began, its own included."""

    shape: StepShape
    seconds: float
    busy: int = 1


class Shared(Struct, frozen=True, kw_only=True):
    """The price of a step alone, and by how much it takes longer while 1, 2, ... engines are busy."""

    cost: Linear
    slowdowns: tuple[float, ...]

    def step_s(self, step: Timed) -> float:
        """Return what the step should have taken."""
        return self.cost.step_s(step.shape) * self.slowdowns[step.busy - 1]

    def off_by(self, step: Timed) -> float:
        """Return what the step took, as a multiple of what it should have taken."""
        return step.seconds / self.step_s(step)


def fit_shared(steps: Sequence[Timed], *, engines: int) -> Shared:
    """Fit both in turn, until they agree; numbers of busy engines that never occurred slow down no more
    than the next lower one.

    Raises ValueError for fewer than 10 steps, and for a time that is not above 0.
    """
    slowdowns = (1.0,) * engines
    for _ in range(_ROUNDS):
        cost = fit((one.shape, one.seconds / slowdowns[one.busy - 1]) for one in steps)
        slowdowns = _slowdowns(steps, cost, engines)
    return Shared(cost=cost, slowdowns=slowdowns)


def _slowdowns(steps: Sequence[Timed], cost: Linear, engines: int) -> tuple[float, ...]:
    took_s, price_s = [0.0] * engines, [0.0] * engines
    for one in steps:
        took_s[one.busy - 1] += one.seconds
        price_s[one.busy - 1] += cost.step_s(one.shape)
    known = [took / price if price else 0.0 for took, price in zip(took_s, price_s, strict=True)]
    least = next(filter(None, known))
    return tuple(accumulate((factor / least for factor in known), max, initial=1.0))[1:]

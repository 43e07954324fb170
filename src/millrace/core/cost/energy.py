"""What steps draw: whole runs of like ones at once, and cost models that know seconds but not watts.

Power is estimated as in `Roofline.power_w`: from idle to the thermal design power with the share of a step in
which the device must compute or read at its best rate, whoever says how long the step takes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isclose, isnan

from millrace.core.cost.linear import Linear
from millrace.core.cost.pipelined import Pipelined
from millrace.core.cost.profiled import Profiled
from millrace.core.cost.roofline import Roofline
from millrace.core.cost.scaled import Scaled
from millrace.core.cost.shape import ENDLESS, CostModel, StepShape, later, line_of

MEASURED = "measured: the mean power while steps ran"
ESTIMATED = "estimated: between idle and thermal design power, by what the data sheet says a step keeps busy"
UNKNOWN = "not known: the data sheet or the calibration says no power"


class Metered:
    """Prices seconds by `cost`, and power and dollars by the data sheet of the devices it runs on."""

    def __init__(self, cost: CostModel, sheet: Roofline) -> None:
        self.cost = cost
        self.sheet = sheet
        self.needs_lengths: bool = getattr(cost, "needs_lengths", False)
        self._straight: Callable[[StepShape, StepShape], int] | None = getattr(cost, "straight", None)
        self.line = line_of(cost)

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""
        return self.cost.step_s(shape)

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws on all devices; NaN where the data sheet knows no power."""
        seconds = self.cost.step_s(shape)
        return self.sheet.power_w(shape, seconds) * seconds

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations from `shape` on, then `following`, rise by equal amounts, at least 1."""
        return self._straight(shape, following) if self._straight else ENDLESS

    @property
    def price_per_h(self) -> float | None:
        """Dollars an hour for all devices; None where the data sheet knows no price."""
        return self.sheet.price_per_h

    @property
    def expected_error(self) -> str:
        """How far off the seconds are expected to be, in words."""
        return str(getattr(self.cost, "expected_error", "not measured"))


def energy_source(cost: CostModel) -> str:
    """Say where the joules of a cost model come from: measured, estimated, or not known."""
    if isinstance(cost, Scaled | Pipelined):
        return energy_source(cost.cost)
    if isinstance(cost, Linear):
        return UNKNOWN if cost.power_w is None else MEASURED
    sheet = cost.sheet if isinstance(cost, Profiled | Metered) else cost
    known = isinstance(sheet, Roofline) and sheet.device.tdp_w is not None and sheet.device.idle_w is not None
    return ESTIMATED if known else UNKNOWN


def run_j(cost: CostModel, first: StepShape, count: int) -> float:
    """Return the joules of `count` like steps from `first` on, in a few prices; NaN if power is not known.

    The prices of the steps must rise by equal amounts, as they do within a run of the simulator. Joules then
    lie on straight lines that bend where a device turns from one bound to another; bends are searched for.
    """

    def at_j(step: int) -> float:
        return cost.step_j(later(first, step))

    if count < 1:
        return 0.0
    begin_j = at_j(0)
    return (
        begin_j
        if count == 1 or isnan(begin_j)
        else _between_j(at_j, (0, begin_j), (count - 1, at_j(count - 1)))
    )


def _between_j(at_j: Callable[[int], float], begin: tuple[int, float], end: tuple[int, float]) -> float:
    """Add up from one step to another, both included."""
    (low, low_j), (high, high_j) = begin, end
    if high - low == 1:
        return low_j + high_j
    steps = (low + (high - low) // 3, low + (high - low) // 2)
    prices = [at_j(step) for step in steps]
    line = [low_j + (high_j - low_j) * (step - low) / (high - low) for step in steps]
    if all(isclose(found, on, rel_tol=1e-12) for found, on in zip(prices, line, strict=True)):
        return (high - low + 1) * (low_j + high_j) / 2
    middle, middle_j = steps[1], prices[1]
    return _between_j(at_j, begin, (middle, middle_j)) + _between_j(at_j, (middle, middle_j), end) - middle_j

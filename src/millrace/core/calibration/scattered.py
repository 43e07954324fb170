"""Prices steps with the scatter of measured ones, so that a simulation has tails as long as real ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import nan
from operator import itemgetter

from millrace.core.cost import Linear, StepShape
from millrace.core.draw import draw_below

_NEIGHBOURS = 48


class Scattered:
    """A step takes its fitted price, times how far off the fit was on a measured step that is much like it.

    Much alike are the nearest by price, among those that compute some of a prompt, or none. Which of them
    it is, is drawn from the shape and `seed`, so the same step of the same engine always takes as long.
    """

    needs_lengths = False

    def __init__(self, cost: Linear, measured: Iterable[tuple[StepShape, float]], *, seed: object) -> None:
        """`measured` are shapes with what their step took as a multiple of the price; at least one."""
        self.cost = cost
        self._seed = seed
        known = [(cost.step_s(shape), off_by, shape.prefills > 0) for shape, off_by in measured]
        if not known:
            raise ValueError("measured is empty; a scatter needs steps to draw from")
        known.sort(key=itemgetter(0))
        kinds = [[one for one in known if one[2] is prompts] or known for prompts in (False, True)]
        self._prices = [[price for price, *_ in kind] for kind in kinds]
        self._off_by = [[off_by for _, off_by, _ in kind] for kind in kinds]

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""
        price_s = self.cost.step_s(shape)
        near = self._near(price_s, prompts=shape.prefills > 0)
        context = (shape.decodes, shape.decode_context_tokens)
        chunk = (shape.prefills, shape.prefill_tokens, shape.prefill_attended_tokens)
        return price_s * near[draw_below(len(near), self._seed, *context, *chunk)]

    def _near(self, price_s: float, *, prompts: bool) -> list[float]:
        """How far off the fit was on the nearest steps, and on all those of the very same price."""
        prices = self._prices[prompts]
        first, last = bisect_left(prices, price_s), bisect_right(prices, price_s)
        missing = max(0, _NEIGHBOURS - (last - first))
        first = max(0, min(first - missing // 2, len(prices) - _NEIGHBOURS))
        return self._off_by[prompts][first : max(last, first + _NEIGHBOURS)]

    def step_j(self, shape: StepShape) -> float:
        """Joules are not known."""
        return nan

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations rise by equal amounts: scattered ones never do."""
        return 1

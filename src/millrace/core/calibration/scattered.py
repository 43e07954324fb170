"""Prices steps with the scatter of measured ones, so that a simulation has tails as long as real ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import log, nan, sqrt
from operator import itemgetter

from millrace.core.cost import Linear, StepShape
from millrace.core.draw import draw
from millrace.core.stats import mean

_NEIGHBOURS = 48
_SPELL_STEPS = 16


class Scattered:
    """A step takes its fitted price, times how far off the fit was on a measured step that is much like it.

    Much alike are the nearest by price, among those that compute some of a prompt, or none. Which of them
    it is, is drawn from the shape and `seed`, so the same step of the same engine always takes as long.
    Slow steps come in spells, and so do quick ones: as many of the decodes as it takes for neighbours to be
    as much alike as measured ones draw their place among the nearest together with those around them.
    """

    needs_lengths = False

    def __init__(self, cost: Linear, measured: Sequence[tuple[StepShape, float]], *, seed: object) -> None:
        """`measured` are shapes, in the order of their steps, with what each took as a multiple of the price.

        Raises ValueError if there are none.
        """
        if not measured:
            raise ValueError("measured is empty; a scatter needs steps to draw from")
        self.cost = cost
        self._seed = seed
        self._in_spells = sqrt(max(0.0, _likeness([log(off_by) for _, off_by in measured])))
        known = [(cost.step_s(shape), off_by, shape.prefills > 0) for shape, off_by in measured]
        known.sort(key=itemgetter(0))
        kinds = [[one for one in known if one[2] is prompts] or known for prompts in (False, True)]
        self._prices = [[price for price, *_ in kind] for kind in kinds]
        self._off_by = [[off_by for _, off_by, _ in kind] for kind in kinds]

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""
        price_s = self.cost.step_s(shape)
        near = sorted(self._near(price_s, prompts=shape.prefills > 0))
        return price_s * near[int(self._place(shape) * len(near))]

    def _near(self, price_s: float, *, prompts: bool) -> list[float]:
        """How far off the fit was on the nearest steps, and on all those of the very same price."""
        prices = self._prices[prompts]
        first, last = bisect_left(prices, price_s), bisect_right(prices, price_s)
        missing = max(0, _NEIGHBOURS - (last - first))
        first = max(0, min(first - missing // 2, len(prices) - _NEIGHBOURS))
        return self._off_by[prompts][first : max(last, first + _NEIGHBOURS)]

    def _place(self, shape: StepShape) -> float:
        """Return the step's place between the quickest (0) and the slowest (1) of its like."""
        decodes, context = shape.decodes, shape.decode_context_tokens
        step = (decodes, context, shape.prefills, shape.prefill_tokens, shape.prefill_attended_tokens)
        if decodes and self._drawn("spell?", *step) < self._in_spells:
            return self._drawn("spell", decodes, context // (decodes * _SPELL_STEPS))
        return self._drawn(*step)

    def _drawn(self, *names: object) -> float:
        return (draw(self._seed, *names) >> 11) / 2**53

    def step_j(self, shape: StepShape) -> float:
        """Joules are not known."""
        return nan

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations rise by equal amounts: scattered ones never do."""
        return 1


def _likeness(values: Sequence[float]) -> float:
    """Return how much alike values are to those that follow them: 1 as much as can be, 0 not at all."""
    middle = mean(values)
    spread = sum((value - middle) ** 2 for value in values)
    together = sum((a - middle) * (b - middle) for a, b in pairwise(values))
    return together / spread if spread else 0.0

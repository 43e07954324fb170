"""A stream of random numbers that belongs to a name: for long workloads, where hashing each would be slow.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), seeded by `draw`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import cos, exp, lgamma, log, pi, sqrt

from millrace.core.draw import draw

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LEAST_SHAPE, _MOST_SHAPE = 0.05, 100.0


class Chance:
    """Numbers one after another; the same names give the same ones, in every process."""

    __slots__ = ("_state",)

    def __init__(self, *names: object) -> None:
        self._state = draw(*names)

    def uniform(self) -> float:
        """Return a number between 0 and 1, neither of them included."""
        self._state = state = (self._state + _STEP) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        return ((state ^ (state >> 31)) >> 12) * 2.0**-52 + 2.0**-53

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        return int(self.uniform() * limit)

    def normal(self) -> float:
        """Return a number from the normal distribution of mean 0 and deviation 1 (Box and Muller)."""
        return sqrt(-2 * log(self.uniform())) * cos(2 * pi * self.uniform())

    def gamma(self, shape: float) -> float:
        """Return a number from the gamma distribution of scale 1 (Marsaglia and Tsang, 2000)."""
        if shape < 1:
            return self.gamma(shape + 1) * exp(log(self.uniform()) / shape)
        d = shape - 1 / 3
        c = 1 / sqrt(9 * d)
        while True:
            x = self.normal()
            v = (1 + c * x) ** 3
            if v > 0 and log(self.uniform()) < x * x / 2 + d * (1 - v + log(v)):
                return d * v

    def weibull(self, shape: float) -> float:
        """Return a number from the Weibull distribution of scale 1."""
        return exp(log(-log(self.uniform())) / shape)

    def between(self, quantiles: Sequence[float]) -> float:
        """Return a number from the distribution with these evenly spaced quantiles, the first its least."""
        return _at(quantiles, self.uniform() * (len(quantiles) - 1))


class Weighted:
    """Picks one of several things, each with a weight of its own."""

    __slots__ = ("_sums",)

    def __init__(self, weights: Iterable[float]) -> None:
        self._sums = list(accumulate(weights))
        if not self._sums or self._sums[-1] <= 0:
            raise ValueError("weights add up to nothing; give at least one above 0")

    def pick(self, chance: Chance) -> int:
        """Return the index of the one that is drawn."""
        return bisect_right(self._sums, chance.uniform() * self._sums[-1])


def zipf(count: int, exponent: float) -> Weighted:
    """Return what picks among `count` things, of which the i-th has a weight of i to the minus exponent."""
    return Weighted((i + 1) ** -exponent for i in range(count))


def gamma_shape(variation: float) -> float:
    """Return the shape of the gamma distribution whose deviation is `variation` times its mean."""
    return variation**-2


def weibull_shape(variation: float) -> float:
    """Return the shape of the Weibull distribution whose deviation is `variation` times its mean.

    Found by bisection between the shapes 0.05 and 100.
    """
    low, high = _LEAST_SHAPE, _MOST_SHAPE
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if weibull_variation(middle) > variation else (low, middle)
    return (low + high) / 2


def weibull_variation(shape: float) -> float:
    """Return the deviation of a Weibull distribution, as a multiple of its mean."""
    return sqrt(max(0.0, exp(lgamma(1 + 2 / shape) - 2 * lgamma(1 + 1 / shape)) - 1))


def weibull_mean(shape: float) -> float:
    """Return the mean of the Weibull distribution of scale 1."""
    return exp(lgamma(1 + 1 / shape))


def quantiles(values: Iterable[float], knots: int) -> tuple[float, ...]:
    """Return evenly spaced quantiles of a sample, its least value first, as `Chance.between` takes them."""
    ordered = sorted(values)
    places = ((len(ordered) - 1) * i / (knots - 1) for i in range(knots))
    return tuple(_at(ordered, place) for place in places)


def _at(ordered: Sequence[float], place: float) -> float:
    below = int(place)
    low = ordered[below]
    return low + (place - below) * (ordered[below + 1] - low) if place > below else low

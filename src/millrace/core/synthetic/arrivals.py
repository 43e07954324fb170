"""When requests come: gaps of a gamma or Weibull distribution whose rate and spread change by period."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle, pairwise
from math import floor, fsum, sqrt
from typing import Literal

from msgspec import Struct

from millrace.core.chance import Chance, gamma_shape, weibull_mean, weibull_shape

Burst = Literal["gamma", "weibull"]
# Gaps more regular than this are taken to be equal.
_REGULAR = 0.02
# A period with fewer gaps says too little of its spread: it takes that of the whole trace.
_FEWEST_GAPS = 8


class Period(Struct, frozen=True, kw_only=True):
    """A stretch of time: how many requests a second begin in it, and how unevenly.

    `variation` is the deviation of the gaps between them as a multiple of their mean: 1 as if by accident
    (Poisson), above that in bursts. `failed` is the share of requests that got no answer.
    """

    seconds: float
    rate_per_s: float
    variation: float = 1.0
    failed: float = 0.0


def fit_periods(
    times_s: Sequence[float], failed: Iterable[bool], period_s: float, end_s: float | None = None
) -> tuple[Period, ...]:
    """Cut ordered times into periods, the first beginning at 0; `end_s` is by default the last time.

    A last piece shorter than half a period is left out, unless it is all there is.
    """
    end_s = times_s[-1] if end_s is None else end_s
    count = max(1, floor(end_s / period_s + 0.5))
    found: list[list[float]] = [[] for _ in range(count)]
    failures = [0] * count
    for t_s, lost in zip(times_s, failed, strict=True):
        index = floor(t_s / period_s)
        if index < count:
            found[index].append(t_s)
            failures[index] += lost
    usual = variation_of([gap for times in found for gap in _gaps(times)], 1.0)
    return tuple(_period(times, lost, period_s, usual) for times, lost in zip(found, failures, strict=True))


def starts(
    periods: Sequence[Period], burst: Burst, chance: Chance, *, again: bool
) -> Iterator[tuple[float, Period]]:
    """Yield the times at which requests begin, and their periods; with `again`, the periods repeat for ever.

    Gaps are drawn in units of the expected gap and stretched by the rate they come to pass in, so a gap
    may reach over the end of a period.
    """
    if not any(p.seconds > 0 and p.rate_per_s > 0 for p in periods):
        raise ValueError("periods have no requests; give one a rate above 0 and a length above 0 s")
    began_s = 0.0
    gap = None
    for period in cycle(periods) if again else periods:
        place_s, end_s = 0.0, period.seconds
        next_gap = _drawing(burst, period.variation, chance)
        gap = next_gap() * chance.uniform() if gap is None else gap
        while period.rate_per_s > 0 and place_s + gap / period.rate_per_s < end_s:
            place_s += gap / period.rate_per_s
            yield began_s + place_s, period
            gap = next_gap()
        gap -= (end_s - place_s) * period.rate_per_s
        began_s += end_s


def variation_of(values: Sequence[float], unknown: float) -> float:
    """Return the deviation of values as a multiple of their mean; `unknown` for too few of them."""
    total = fsum(values)
    if len(values) < _FEWEST_GAPS or not total:
        return unknown
    mean = total / len(values)
    return sqrt(fsum((value - mean) ** 2 for value in values) / len(values)) / mean


def _drawing(burst: Burst, variation: float, chance: Chance) -> Callable[[], float]:
    """Return what draws gaps of mean 1."""
    if variation < _REGULAR:
        return lambda: 1.0
    if burst == "gamma":
        shape = gamma_shape(variation)
        return lambda: chance.gamma(shape) / shape
    shape = weibull_shape(variation)
    scale = 1 / weibull_mean(shape)
    return lambda: chance.weibull(shape) * scale


def _gaps(times_s: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(times_s)]


def _period(times_s: Sequence[float], lost: int, seconds: float, usual: float) -> Period:
    count = len(times_s)
    return Period(
        seconds=seconds,
        rate_per_s=count / seconds,
        variation=variation_of(_gaps(times_s), usual),
        failed=lost / count if count else 0.0,
    )

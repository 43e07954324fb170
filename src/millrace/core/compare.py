"""How sure a difference is: means with 95 % intervals from a block bootstrap (Künsch, 1989), drawn by hash.

Latencies of neighbours in a queue are alike, so single requests must not be redrawn: a run is cut into
contiguous blocks, and whole blocks are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import fsum
from operator import attrgetter

from msgspec import Struct

from millrace.core.draw import draw_below
from millrace.core.outcome import Outcome
from millrace.core.stats import mean, percentile

BLOCKS = 50
DRAWS = 1000


class Estimate(Struct, frozen=True, kw_only=True):
    """A mean, and the interval that holds 95 % of the means of redrawn samples."""

    mean: float
    low: float
    high: float


def blocks_of(values: Sequence[float], *, blocks: int = BLOCKS) -> list[tuple[float, int]]:
    """Cut values into at most `blocks` contiguous parts of like size; return each one's sum and count."""
    parts = min(blocks, len(values))
    ends = [len(values) * part // parts for part in range(parts + 1)] if parts else []
    cuts = (values[start:end] for start, end in pairwise(ends))
    return [(fsum(cut), len(cut)) for cut in cuts]


def redrawn(count: int, *names: object, draws: int = DRAWS) -> Iterator[list[int]]:
    """Yield `draws` samples of `count` indices below `count`; the same names give the same samples."""
    for turn in range(draws):
        yield [draw_below(count, *names, turn, place) for place in range(count)]


def mean_of(blocks: Sequence[tuple[float, int]], chosen: Sequence[int]) -> float:
    """Return the mean of the values in the chosen blocks."""
    return fsum(blocks[i][0] for i in chosen) / sum(blocks[i][1] for i in chosen)


def estimate(values: Sequence[float], *names: object, draws: int = DRAWS) -> Estimate:
    """Estimate the mean of values in their order of time. Raises ValueError for no values."""
    centre = mean(values)
    blocks = blocks_of(values)
    means = [mean_of(blocks, chosen) for chosen in redrawn(len(blocks), *names, draws=draws)]
    return Estimate(mean=centre, low=percentile(means, 2.5), high=percentile(means, 97.5))


def paired(base: Sequence[float], other: Sequence[float], *names: object, draws: int = DRAWS) -> Estimate:
    """Estimate the mean of `other - base`, value by value: what both share cancels out.

    Raises ValueError unless both have the same number of values, at least one.
    """
    if len(base) != len(other):
        raise ValueError(f"{len(base)} and {len(other)} values; pair each of one with one of the other")
    return estimate([b - a for a, b in zip(base, other, strict=True)], *names, draws=draws)


class Comparison(Struct, frozen=True, kw_only=True):
    """How much later than another policy one is, in seconds a request: negative means sooner."""

    requests: int
    ttft_s: Estimate
    e2e_s: Estimate


Pair = tuple[Outcome, Outcome]


def matched(base: Iterable[Outcome], other: Iterable[Outcome]) -> list[Pair]:
    """Pair what became of each request under two policies, in order of arrival, if both completed it."""
    known = {outcome.id: outcome for outcome in base if outcome.status == "completed"}
    done = (outcome for outcome in other if outcome.status == "completed" and outcome.id in known)
    return [(known[outcome.id], outcome) for outcome in sorted(done, key=attrgetter("scheduled_s"))]


def compared(pairs: Sequence[Pair]) -> Comparison | None:
    """Estimate by how much the second of each pair is later than the first; None for no pairs."""
    if not pairs:
        return None
    return Comparison(requests=len(pairs), ttft_s=_later(pairs, "ttft_s"), e2e_s=_later(pairs, "e2e_s"))


def _later(pairs: Sequence[Pair], name: str) -> Estimate:
    first, second = zip(*((getattr(a, name), getattr(b, name)) for a, b in pairs), strict=True)
    return paired(first, second, "comparison", name)

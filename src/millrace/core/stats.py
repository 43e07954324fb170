"""Exact statistics of samples, defined once: percentiles interpolate linearly, as numpy's default does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, fsum

from msgspec import Struct


class Summary(Struct, frozen=True, kw_only=True):
    """A sample in eight numbers, in the unit of its values."""

    count: int
    mean: float
    min: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    max: float


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean. Raises ValueError for no values."""
    known = list(values)
    _require(known)
    return fsum(known) / len(known)


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value below which `percent` of the sample lies, 0 to 100. Raises ValueError for none."""
    ordered = sorted(values)
    _require(ordered)
    return _at(ordered, percent)


def summary(values: Iterable[float]) -> Summary:
    """Summarise a sample. Raises ValueError for no values: an empty sample has no percentiles."""
    ordered = sorted(values)
    _require(ordered)
    return Summary(
        count=len(ordered),
        mean=fsum(ordered) / len(ordered),
        min=ordered[0],
        p50=_at(ordered, 50),
        p75=_at(ordered, 75),
        p90=_at(ordered, 90),
        p95=_at(ordered, 95),
        p99=_at(ordered, 99),
        max=ordered[-1],
    )


def _require(values: Sequence[float]) -> None:
    if not values:
        raise ValueError("values is empty; pass at least one number")


def _at(ordered: Sequence[float], percent: float) -> float:
    if not 0 <= percent <= 100:
        raise ValueError(f"percent is {percent}; it must be between 0 and 100")
    position = percent / 100 * (len(ordered) - 1)
    below = floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    part = position - below
    # From the nearer end, as numpy does: the result never leaves [low, high].
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)

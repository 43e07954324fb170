"""How like two samples are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


def distance(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Return the largest gap between the shares of two samples up to any value (Kolmogorov, Smirnov).

    0 for samples distributed alike, 1 for samples that do not overlap. Raises ValueError for an empty one.
    """
    a, b = sorted(ours), sorted(theirs)
    if not a or not b:
        raise ValueError("a sample is empty; pass at least one value of each")
    return max(abs(bisect_right(a, x) / len(a) - bisect_right(b, x) / len(b)) for x in {*a, *b})

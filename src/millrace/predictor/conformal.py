"""Sets of classes that hold the true one as often as promised, whatever the classifier is worth.

Source: split conformal prediction; the least ambiguous sets of Sadinle, Lei and Wasserman (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def least_share(shares_of_true: Sequence[float], coverage: float) -> float:
    """Return the probability from which a class belongs to the set.

    `shares_of_true` are the probabilities that the classifier gave to what came true, for requests that it
    had not seen. For a new one like them the set holds the true class with at least the `coverage`.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must be between 0 and 1")
    falling = sorted(shares_of_true, reverse=True)
    rank = ceil((len(falling) + 1) * coverage)
    return 0.0 if rank > len(falling) else falling[rank - 1]


def classes_of(shares: Sequence[float], least: float) -> tuple[int, ...]:
    """Return the numbers of the classes with at least this share, the likeliest one in any case."""
    likeliest = max(range(len(shares)), key=shares.__getitem__)
    return tuple(n for n, share in enumerate(shares) if share >= least or n == likeliest)

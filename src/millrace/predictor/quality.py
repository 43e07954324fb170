"""How good predictions are, on requests that nothing was learned from."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

RANKS_FROM = 0.55
"""Share of pairs in the right order below which predictions are worth no more than a coin."""


class Quality(Struct, frozen=True, kw_only=True):
    """What a predictor was trained on, and how it did on the held-out requests, which came after all others.

    `class_shares` are those of all answers. `accuracy` is the share whose likeliest class was the true one,
    `coverage` that of true classes among the predicted ones, of which there were `classes_per_answer`.
    `rank_correlation` (Spearman's) is between expected and true lengths; `pairs_in_order` is the share of
    pairs of different classes that the prediction puts into the right order, a half being luck.
    """

    trained: int
    calibrated: int
    held_out: int
    class_shares: tuple[float, float, float]
    accuracy: float
    coverage: float
    classes_per_answer: float
    rank_correlation: float
    pairs_in_order: float

    @property
    def ranks(self) -> bool:
        """Whether the predictions tell shorter answers from longer ones."""
        return self.pairs_in_order >= RANKS_FROM


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, 0 if either side knows no difference."""
    one, other = _ranks(first), _ranks(second)
    middle = (len(one) - 1) / 2
    spread = [sum((rank - middle) ** 2 for rank in ranks) for ranks in (one, other)]
    if not all(spread):
        return 0.0
    together = sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    return float(together / (spread[0] * spread[1]) ** 0.5)


def pairs_in_order(expected: Sequence[float], classes: Sequence[int]) -> float:
    """Return the share of pairs of different classes whose expected lengths are in order; ties count half."""
    numbers = sorted(set(classes))
    right = pairs = 0.0
    for place, lower in enumerate(numbers):
        short = sorted(e for e, c in zip(expected, classes, strict=True) if c == lower)
        longer = sorted(e for e, c in zip(expected, classes, strict=True) if c in numbers[place + 1 :])
        pairs += len(short) * len(longer)
        right += _below(short, longer)
    return right / pairs if pairs else 0.5


def _below(short: Sequence[float], longer: Sequence[float]) -> float:
    """Count the pairs in which the one of `short` is smaller, both being sorted; equals are a half."""
    counted, smaller, equal = 0.0, 0, 0
    for value in longer:
        while smaller < len(short) and short[smaller] < value:
            smaller += 1
        equal = max(equal, smaller)
        while equal < len(short) and short[equal] == value:
            equal += 1
        counted += smaller + (equal - smaller) / 2
    return counted


def _ranks(values: Sequence[float]) -> list[float]:
    """Return each value's place, equals sharing the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or values[order[end]] != values[order[start]]:
            for place in order[start:end]:
                ranks[place] = (start + end - 1) / 2
            start = end
    return ranks

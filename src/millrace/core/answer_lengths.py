"""How long the last answers of one kind were: exact shares and quantiles of a bounded number of them.

Source: the measures of BenchOverflow (Jan 2026), empirical distribution functions and cap-saturation rates.
Its abstract gives CSR@1k, 3k and 5k under a budget of 5,000 new tokens without a formula; here CSR@k is the
share of answers of at least k tokens, so CSR@5k is of those that use the whole budget up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from math import ceil

BUDGET_TOKENS = 5000
SATURATIONS = (1000, 3000, 5000)


class AnswerLengths:
    """The lengths in tokens of the last answers, at most `remembered` of them."""

    __slots__ = ("_last", "_rising")

    def __init__(self, remembered: int) -> None:
        self._last: deque[int] = deque(maxlen=remembered)
        self._rising: list[int] = []

    def __len__(self) -> int:
        return len(self._last)

    def see(self, tokens: int) -> None:
        """Take in an answer; the oldest one is forgotten when there are too many."""
        if len(self._last) == self._last.maxlen:
            del self._rising[bisect_left(self._rising, self._last[0])]
        self._last.append(tokens)
        insort(self._rising, tokens)

    def saturation(self, tokens: int) -> float:
        """Return CSR@tokens, the share of answers that have at least so many; 0 of none."""
        longer = len(self._rising) - bisect_left(self._rising, tokens)
        return longer / len(self._rising) if self._rising else 0.0

    def ecdf(self, tokens: int) -> float:
        """Return the share of answers that have at most so many tokens; 0 of none."""
        return bisect_right(self._rising, tokens) / len(self._rising) if self._rising else 0.0

    def below(self, tokens: int) -> int:
        """Return how many answers are shorter than this."""
        return bisect_left(self._rising, tokens)

    def quantile(self, share: float, *, below: int) -> int:
        """Return the least length that this share of the answers shorter than `below` does not exceed.

        There must be such answers.
        """
        return self._rising[max(1, ceil(share * self.below(below))) - 1]

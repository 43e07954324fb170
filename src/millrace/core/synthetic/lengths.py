"""How long prompts and answers are: a mixture of strata, so that prompts get answers as they did."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from msgspec import Struct

from millrace.core.chance import Chance, quantiles

_KNOTS = 65


class Stratum(Struct, frozen=True):
    """Requests with prompts of similar length: evenly spaced quantiles of both lengths in tokens.

    The first quantile is the least, the last the greatest; between two of them all lengths are as likely.
    """

    input_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]


class Lengths(Struct, frozen=True, dict=True):
    """Strata of equal weight, by rising length of prompt."""

    strata: tuple[Stratum, ...]

    def both(self, chance: Chance) -> tuple[int, int]:
        """Draw the tokens of a prompt and of its answer."""
        stratum = self.strata[chance.below(len(self.strata))]
        return round(chance.between(stratum.input_tokens)), round(chance.between(stratum.output_tokens))

    def answer_to(self, input_tokens: int, chance: Chance) -> int:
        """Draw the tokens of the answer to a prompt of this length."""
        index = min(bisect_left(self._longest, input_tokens), len(self.strata) - 1)
        return round(chance.between(self.strata[index].output_tokens))

    @cached_property
    def _longest(self) -> list[float]:
        return [stratum.input_tokens[-1] for stratum in self.strata]


def fit_lengths(pairs: Sequence[tuple[int, int]], strata: int = 16) -> Lengths:
    """Fit to tokens of prompts and answers; there are fewer strata if there are fewer pairs.

    Raises ValueError for none.
    """
    if not pairs:
        raise ValueError("pairs is empty: no request got an answer; pass at least one that did")
    ordered = sorted(pairs)
    count = min(strata, len(ordered))
    bounds = [len(ordered) * i // count for i in range(count + 1)]
    return Lengths(tuple(_stratum(ordered[a:b]) for a, b in pairwise(bounds)))


def _stratum(pairs: Sequence[tuple[int, int]]) -> Stratum:
    return Stratum(quantiles([a for a, _ in pairs], _KNOTS), quantiles([b for _, b in pairs], _KNOTS))

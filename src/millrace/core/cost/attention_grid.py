"""Attention as it was measured: the seconds of all layers on a grid of batches, and straight lines between.

A batch is a chunk of a prompt on top of some cached tokens, together with decodes of equal length. The two
are not additive: a kernel that serves both at once treats decodes like prompts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cached_property
from math import floor, inf
from typing import Generic, TypeVar

from millrace.core.cost.curve import Curve, curve
from millrace.core.cost.shape import ENDLESS, StepShape
from millrace.core.cost.skew import Skew
from millrace.core.stats import mean, percentile

Batch = tuple[int, int, int, int]
"""Tokens of the prompt chunk, its cached tokens, decodes, and the cached tokens of each."""

T = TypeVar("T")


class _Axis(Generic[T]):
    """What was measured at some values of one property of a batch; below the first, the first one holds."""

    __slots__ = ("parts", "points")

    def __init__(self, parts: Mapping[int, T]) -> None:
        self.points = sorted(parts)
        self.parts = [parts[point] for point in self.points]

    def at(self, x: float, price: Callable[[T], float]) -> float:
        i, j, part = self._between(x)
        low = price(self.parts[i])
        return low + part * (price(self.parts[j]) - low) if part else low

    def around(self, x: float) -> tuple[T, T]:
        i, j, part = self._between(x)
        return self.parts[i], self.parts[j if part else i]

    def bend_after(self, x: float) -> float:
        i = bisect_right(self.points, x)
        return self.points[i] if i < len(self.points) - 1 else inf

    def _between(self, x: float) -> tuple[int, int, float]:
        """The indices of two points around `x`, and how far it is from the first to the second."""
        points = self.points
        if x <= points[0] or len(points) == 1:
            return 0, 0, 0.0
        j = min(bisect_right(points, x), len(points) - 1)
        low = points[j - 1]
        return j - 1, j, (x - low) / (points[j] - low)


class _Chunk:
    """What was measured with a chunk of this many tokens: by decodes, by cached tokens, by lengths."""

    __slots__ = ("counts", "tokens")

    def __init__(self, tokens: int, counts: _Axis[_Axis[Curve]]) -> None:
        self.tokens = tokens
        self.counts = counts

    def price_s(self, attended: float, decodes: int, each: float) -> float:
        """Seconds, if each of its tokens looks at so many others."""
        cached = self._cached(attended)

        def row_s(rows: _Axis[Curve]) -> float:
            if cached >= 0:
                return rows.at(cached, lambda lengths: lengths.at(each))
            return _fewer_pairs_s(rows, self.tokens, cached, each)

        return self.counts.at(decodes, row_s)

    def room(self, attended: float) -> float:
        """By how many more tokens each may look at before the price of the chunk alone bends."""
        cached = self._cached(attended)
        return self.counts.around(0)[0].bend_after(cached) - cached if cached >= 0 else -cached

    def _cached(self, attended: float) -> float:
        return attended - (self.tokens + 1) / 2


class AttentionGrid:
    """Prices attention from measured batches; beyond the grid its last two points are continued.

    The grid may have holes: each chunk its own numbers of decodes, each of those its own lengths. Several
    prompts in a step count as one that looks at as many pairs of tokens. Between chunks of the grid, the line
    is drawn where a token looks at as many others: work is in proportion to the tokens there, and would bend
    along an equal cache, as every token of a longer chunk looks at more of the chunk itself.
    """

    needs_lengths = True

    def __init__(self, seconds: Mapping[Batch, float], skew: Skew | None = None) -> None:
        self.seconds = dict(seconds)
        self.skew = skew
        nested: dict[int, dict[int, dict[int, dict[int, float]]]] = {}
        for (chunk, cached, decodes, each), value in self.seconds.items():
            nested.setdefault(chunk, {}).setdefault(decodes, {}).setdefault(cached, {})[each] = value
        if 0 not in nested or len(nested) < 2:
            raise ValueError("an attention grid needs batches of decodes alone (chunk 0), and prompts")
        alone = nested.pop(0)
        self._decodes = _Axis({n: curve(rows.get(0, {})) for n, rows in alone.items()})
        self._mixed = _Axis(
            {
                chunk: _Chunk(
                    chunk,
                    _Axis(
                        {
                            n: _Axis({cached: curve(row) for cached, row in rows.items()})
                            for n, rows in by_count.items()
                        }
                    ),
                )
                for chunk, by_count in nested.items()
            }
        )

    def attention_s(self, shape: StepShape) -> float:
        """Seconds of attention in all layers."""
        chunk, decodes = shape.prefill_tokens, shape.decodes
        each = shape.decode_context_tokens / decodes if decodes else 0.0
        cached = cached_each(shape)
        seconds = self._uniform_s(chunk, cached, decodes, each)
        if self.skew and decodes > 1:
            alpha = self.skew.alpha(shape, max(0.0, cached))
            if alpha:
                longest_s = self._uniform_s(chunk, cached, decodes, shape.decode_longest_tokens)
                seconds += alpha * (longest_s - seconds)
        return seconds

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations from `shape` on, then `following`, rise by equal amounts, at least 1."""
        if shape.prefills and shape.decodes:
            return 1  # both lengths grow, and the price has a part for their product
        if shape.prefills:
            return self._straight_prompt(shape, following)
        each = shape.decode_context_tokens / shape.decodes
        room = self._room(shape.decodes, each)
        if self.skew and shape.decode_longest_tokens > shape.decode_shortest_tokens:
            longest = shape.decode_longest_tokens
            room = min(room, self._room(shape.decodes, longest), self.skew.room(longest))
        return _iterations(room)

    @cached_property
    def expected_error(self) -> str:
        """How well the grid predicts measured points that are taken out of it, in words."""
        errors = [error for axis in self._lines() for error in _left_out(axis)]
        if not errors:
            return "attention measured; too few points to tell how well what lies between is predicted"
        return (
            f"attention measured; of points left out, mean {mean(errors):.1%} off, 95th percentile "
            f"{percentile(errors, 95):.1%}"
        )

    def _uniform_s(self, chunk: int, cached: float, decodes: int, each: float) -> float:
        if not chunk:
            return self._decodes.at(decodes, lambda lengths: lengths.at(each))

        attended = self._attended(chunk, cached)
        return self._mixed.at(chunk, lambda timed: timed.price_s(attended, decodes, each))

    def _attended(self, chunk: int, cached: float) -> float:
        """How many others a token of the chunk looks at; of a chunk below all measured, as many as there."""
        return cached + (max(chunk, self._mixed.points[0]) + 1) / 2

    def _room(self, decodes: int, each: float) -> float:
        return min(lengths.bend_after(each) for lengths in self._decodes.around(decodes)) - each

    def _straight_prompt(self, shape: StepShape, following: StepShape) -> int:
        cached = cached_each(shape)
        growth = cached_each(following) - cached
        attended = self._attended(shape.prefill_tokens, cached)
        rooms = [timed.room(attended) for timed in self._mixed.around(shape.prefill_tokens)]
        return _iterations(min(rooms) / growth) if growth > 0 else 1

    def _lines(self) -> list[Curve]:
        """All rows of the grid along the lengths of decodes, and along the cache of prompts."""
        decodes = list(self._decodes.parts)
        rows = [n for timed in self._mixed.parts for n in timed.counts.parts]
        mixed = [lengths for row in rows for lengths in row.parts]
        prompts = [
            Curve(tuple(row.points), tuple(lengths.values[0] for lengths in row.parts)) for row in rows
        ]
        return decodes + mixed + prompts


def cached_each(shape: StepShape) -> float:
    """Cached tokens on which one chunk would look at as many pairs; below 0 for several short prompts."""
    chunk = shape.prefill_tokens
    return shape.prefill_attended_tokens / chunk - (chunk + 1) / 2 if chunk else 0.0


def _fewer_pairs_s(rows: _Axis[Curve], chunk: int, cached: float, each: float) -> float:
    """Continue the row below an empty cache, with the slope it has up to a cache as long as the chunk.

    Shorter stretches show noise: there the pairs of the chunk with itself outweigh those with the cache.
    """
    first = rows.parts[0].at(each)
    end = next((i for i, point in enumerate(rows.points) if point >= chunk), len(rows.points) - 1)
    width = rows.points[end] - rows.points[0]
    slope = (rows.parts[end].at(each) - first) / width if width else 0.0
    return max(first + slope * cached, 0.0)


def _iterations(room: float) -> int:
    return 1 + floor(room) if room < ENDLESS else ENDLESS


def _left_out(line: Curve) -> list[float]:
    """Return how far off each inner point would be if it had not been measured."""
    found = []
    for i in range(1, len(line.points) - 1):
        without = Curve((line.points[i - 1], line.points[i + 1]), (line.values[i - 1], line.values[i + 1]))
        found.append(abs(without.at(line.points[i]) / line.values[i] - 1))
    return found

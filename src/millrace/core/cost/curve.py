"""A measured quantity as a function of one other: straight lines from each measured point to the next."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import inf

from msgspec import Struct


class Curve(Struct, frozen=True):
    """Values at increasing points; the first and the last piece go on for ever."""

    points: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.points or len(self.points) != len(self.values):
            raise ValueError(
                f"a curve has {len(self.points)} points and {len(self.values)} values; give as many of each"
            )
        if any(a >= b for a, b in zip(self.points, self.points[1:], strict=False)):
            raise ValueError("the points of a curve must rise: sort them and give each once")

    def at(self, x: float) -> float:
        """Return the value at `x`."""
        points, values = self.points, self.values
        if len(points) == 1:
            return values[0]
        i = min(max(bisect_right(points, x), 1), len(points) - 1)
        low, value = points[i - 1], values[i - 1]
        return value + (x - low) / (points[i] - low) * (values[i] - value)

    def bend_after(self, x: float) -> float:
        """Return the next point after `x` at which one piece ends and another begins, or infinity."""
        i = max(bisect_right(self.points, x), 1)
        return self.points[i] if i < len(self.points) - 1 else inf

    def thinned(self, tolerance: float) -> Curve:
        """Return a curve with as few of the points as keep all others within `tolerance`, a share."""
        kept = [0]
        while kept[-1] < len(self.points) - 1:
            kept.append(self._furthest(kept[-1], tolerance))
        return Curve(tuple(self.points[i] for i in kept), tuple(self.values[i] for i in kept))

    def _furthest(self, start: int, tolerance: float) -> int:
        """Return the last point that a straight line from `start` may end at."""
        for end in range(len(self.points) - 1, start + 1, -1):
            line = Curve((self.points[start], self.points[end]), (self.values[start], self.values[end]))
            passed = range(start + 1, end)
            if all(
                abs(line.at(self.points[i]) - self.values[i]) <= tolerance * self.values[i] for i in passed
            ):
                return end
        return start + 1


def curve(values: Mapping[int, float]) -> Curve:
    """Return the curve through these values, in whatever order they come."""
    points = sorted(values)
    return Curve(tuple(points), tuple(values[point] for point in points))


def at_least(points: Sequence[int], x: int) -> int:
    """Return the first point that is not below `x`, or `x` itself if there is none."""
    i = bisect_left(points, x)
    return points[i] if i < len(points) else x

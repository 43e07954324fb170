"""Axes: where a value lies in a chart, and which values deserve a tick."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor, log10

from msgspec import Struct

_STEPS = (1, 2, 5, 10)
_LEAST = 1e-15
_EXACT = 1e-9


class Scale(Struct, frozen=True):
    """Maps values from `low` to `high` on pixels from `start_px` to `end_px`; outside is clamped."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        inside = min(self.high, max(self.low, value))
        if self.log:
            part = log10(inside / self.low) / log10(self.high / self.low)
        else:
            part = (inside - self.low) / (self.high - self.low)
        return self.start_px + part * (self.end_px - self.start_px)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values to mark, some `about` of them."""
        return _log_ticks(self.low, self.high, about) if self.log else _ticks(self.low, self.high, about)


def linear(values: Iterable[float], start_px: float, end_px: float) -> Scale:
    """A scale from zero to a round value above the largest."""
    high = max(_seen(values), default=1.0)
    step = _step(high / 5)
    return Scale(0.0, ceil(high / step - _EXACT) * step, start_px, end_px)


def logarithmic(values: Iterable[float], start_px: float, end_px: float) -> Scale:
    """A logarithmic scale between round values around the positive ones; at least a factor of ten wide."""
    known = _seen(values) or [1.0]
    low, high = _round_down(min(known)), _round_up(max(known))
    return Scale(low, max(high, low * 10), start_px, end_px, log=True)


def _seen(values: Iterable[float]) -> list[float]:
    """The values that can be drawn: among numbers near the least that there are, none is round."""
    return [value for value in values if value > _LEAST]


def _ticks(low: float, high: float, about: int) -> list[float]:
    step = _step((high - low) / about)
    return [i * step for i in range(ceil(low / step - _EXACT), floor(high / step + _EXACT) + 1)]


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    """Powers of ten; with 1-2-5 steps between where there is room."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = (1, 2, 5) if 3 * log10(high / low) <= about + 2 else (1,)
    marks = [step * 10.0**decade for decade in decades for step in steps]
    return [mark for mark in marks if low * (1 - _EXACT) <= mark <= high * (1 + _EXACT)]


def _step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    unit = 10.0 ** floor(log10(rough))
    return next(step * unit for step in _STEPS if step * unit >= rough * (1 - _EXACT))


def _round_down(value: float) -> float:
    unit = 10.0 ** floor(log10(value))
    return max(step * unit for step in _STEPS if step * unit <= value * (1 + _EXACT))


def _round_up(value: float) -> float:
    return _step(value)

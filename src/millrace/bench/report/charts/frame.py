"""What charts are drawn with: axes, lines, marks, reference lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from millrace.bench.report.markup import element, escape, number
from millrace.bench.report.scale import Scale

Point = tuple[float, float]
Text = Callable[[float], str]

_CIRCLE, _SQUARE = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.5-3.5h7v7h-7z"
_TRIANGLE, _DIAMOND = "M0-4.5l4.5 8h-9z", "M0-5l5 5l-5 5l-5-5z"
_MARKS = (_CIRCLE, _SQUARE, _TRIANGLE, _DIAMOND)

LEFT_PX, TOP_PX = 54, 18
WIDTH_PX, RIGHT_PX = 520, 506
SMALL_WIDTH_PX, SMALL_RIGHT_PX = 346, 338


def x_axis(scale: Scale, baseline_px: float, text: Text, label: str) -> str:
    """A baseline with ticks and, below, what is measured."""
    marks = "".join(
        element("path", d=f"M{number(scale.at(v))} {number(baseline_px)}v4", class_="base")
        + _tick(scale.at(v), baseline_px + 17, text(v), "middle")
        for v in scale.ticks()
    )
    base = line([(scale.start_px, baseline_px), (scale.end_px, baseline_px)], "base")
    return base + marks + _label((scale.start_px + scale.end_px) / 2, baseline_px + 34, label, "middle")


def y_axis(scale: Scale, text: Text, label: str, *, about: int = 5, right_px: float = RIGHT_PX) -> str:
    """Horizontal grid lines with their values, and what is measured above them."""
    lines = "".join(
        element("path", d=_line([(LEFT_PX, scale.at(v)), (right_px, scale.at(v))]), class_="grid")
        + _tick(LEFT_PX - 7, scale.at(v) + 4, text(v), "end")
        for v in scale.ticks(about)
    )
    return lines + _label(0, TOP_PX - 9, label, "start")


def line(points: Sequence[Point], name: str) -> str:
    """A line through the points."""
    return element("path", d=_line(points), class_=name)


def steps(points: Sequence[Point], name: str) -> str:
    """A line that keeps its height until the next point."""
    first, *_ = points
    moves = "".join(f"H{number(x)}V{number(y)}" for x, y in points[1:])
    return element("path", d=f"M{number(first[0])} {number(first[1])}{moves}", class_=name)


def area(above: Sequence[Point], below: Sequence[Point], name: str) -> str:
    """What lies between two lines, both from left to right."""
    return element("path", d=f"{_line([*above, *reversed(below)])}z", class_=name)


def dots(points: Iterable[Point], name: str) -> str:
    """Many equal dots as one path of round-capped lines without length: a few bytes each."""
    path = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
    return element("path", d=path, class_=name) if path else ""


def bar(x: float, y: float, width: float, height: float, name: str) -> str:
    """A rectangle."""
    return element("rect", x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=name)


def marker(index: int, x: float, y: float, name: str = "mark") -> str:
    """A mark whose shape also tells which policy it is: colour alone does not reach everybody."""
    place = f"translate({number(x)} {number(y)})"
    return element("path", d=_MARKS[index % len(_MARKS)], transform=place, class_=name)


def words(x: float, y: float, text: str, name: str = "value", anchor: str = "start") -> str:
    """Text at a place."""
    return element("text", escape(text), x=x, y=y, class_=name, text_anchor=anchor)


def limit_across(
    scale: Scale, value: float, text: str, *, top_px: float, bottom_px: float, clear_px: float = 0
) -> str:
    """A dashed vertical line at an objective, from its name down; the name keeps right of `clear_px`."""
    x = scale.at(value)
    name = words(max(x, clear_px), top_px, text, "limit-name", "middle")
    return line([(x, top_px + 4), (x, bottom_px)], "limit") + name


def limit_along(scale: Scale, value: float, text: str, *, right_px: float) -> str:
    """A dashed horizontal line at an objective, with its name at its end."""
    y = scale.at(value)
    return line([(LEFT_PX, y), (right_px, y)], "limit") + words(right_px, y - 5, text, "limit-name", "end")


def _line(points: Sequence[Point]) -> str:
    """Path data in relative steps, which take the fewest characters."""
    rounded = [(round(x, 1), round(y, 1)) for x, y in points]
    moves = "".join(f"l{number(b[0] - a[0])} {number(b[1] - a[1])}" for a, b in pairwise(rounded))
    return f"M{number(rounded[0][0])} {number(rounded[0][1])}{moves}"


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    return words(x, y, text, "tick", anchor)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return words(x, y, text, "axis", anchor)

"""How many requests were answered how fast: cumulative distributions over a logarithmic time axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.bench.report.charts.figure import Figure, colour, panel, policy_legend, stroke
from millrace.bench.report.charts.frame import (
    LEFT_PX,
    RIGHT_PX,
    TOP_PX,
    Point,
    limit_across,
    line,
    marker,
    x_axis,
    y_axis,
)
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, World
from millrace.bench.report.scale import Scale, logarithmic
from millrace.bench.report.units import duration, share, tick
from millrace.core.outcome import Outcome
from millrace.core.stats import percentile

Latency = Callable[[Outcome], float | None]

_HEIGHT_PX, _BASELINE_PX = 290, 248
_CLEAR_PX = 145  # to the left of it is the name of the vertical axis
_DRAWN_PERCENTS = range(101)
_TOLD_PERCENTS = (10, 25, 50, 75, 90, 95, 99)
_MARKED_PERCENTS = (50, 90, 99)


def cdf(
    policies: Sequence[PolicyRuns], latency: Latency, *, title: str, limit_s: float | None = None
) -> Figure:
    """Draw one curve per run. Requests without an answer keep a curve below 100 %."""
    curves = [_Curve(policies, i, world, latency) for i, p in enumerate(policies) for world, _ in p.worlds()]
    x = logarithmic([value for curve in curves for value in curve.values], LEFT_PX, RIGHT_PX)
    y = Scale(0.0, 1.0, _BASELINE_PX, TOP_PX + 6)
    limit = "" if limit_s is None else _limit(x, limit_s)
    axes = y_axis(y, share, "share of all requests")
    axes += x_axis(x, _BASELINE_PX, tick, f"{title}, log scale")
    drawn = [curve.draw(x, y) for curve in curves]
    return Figure(
        title=f"{title} distribution",
        note="Marks are the medians, 90th and 99th percentiles of completed requests.",
        legend=policy_legend(policies),
        panels=[panel(axes, limit, *drawn, height_px=_HEIGHT_PX, label=f"Distribution of {title} by policy")],
        columns=["policy", "world", *(f"p{percent}" for percent in _TOLD_PERCENTS)],
        rows=[curve.told() for curve in curves],
    )


class _Curve:
    """The sorted latencies of one run."""

    def __init__(self, policies: Sequence[PolicyRuns], index: int, world: World, latency: Latency) -> None:
        policy = policies[index]
        run = policy.live if world == "live" else policy.simulated
        assert run is not None
        known = (latency(o) for o in run.outcomes if o.status == "completed")
        self.index = index
        self.name = policy.name
        self.world = world
        self.stroke = stroke(world, policies)
        self.values = sorted(value for value in known if value is not None)
        self.answered = len(self.values) / (run.measured.requests or 1)

    def draw(self, x: Scale, y: Scale) -> str:
        """Draw the line and its marks."""
        if not self.values:
            return ""

        def at(percent: float) -> Point:
            return x.at(percentile(self.values, percent)), y.at(percent / 100 * self.answered)

        marks = [marker(self.index, *at(percent), f"mark {self.stroke}") for percent in _MARKED_PERCENTS]
        curve = line([at(percent) for percent in _DRAWN_PERCENTS], f"line {self.stroke}")
        return element("g", curve, *marks, class_=colour(self.index))

    def told(self) -> list[str]:
        """Return the row of the table."""
        points = [percentile(self.values, p) if self.values else None for p in _TOLD_PERCENTS]
        return [self.name, self.world, *map(duration, points)]


def _limit(x: Scale, limit_s: float) -> str:
    if not x.low <= limit_s <= x.high:
        return ""
    name = f"SLO {tick(limit_s)}"
    return limit_across(x, limit_s, name, top_px=TOP_PX - 9, bottom_px=_BASELINE_PX, clear_px=_CLEAR_PX)

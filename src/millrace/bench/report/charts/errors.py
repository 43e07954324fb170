"""How far the simulation was from reality, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.bench.report.charts.figure import Figure, colour, panel, policy_legend
from millrace.bench.report.charts.frame import RIGHT_PX, bar, line, marker, words, x_axis
from millrace.bench.report.markup import element
from millrace.bench.report.metrics import METRICS, Metric, difference
from millrace.bench.report.model import PolicyRuns
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import MINUS, MISSING, fixed, share

_NAMES_PX, _TOP_PX, _ROW_PX = 92, 10, 24
_NEAR = 0.10


def errors(policies: Sequence[PolicyRuns]) -> Figure | None:
    """Draw one row per metric and one mark per policy; None if nothing ran in both worlds."""
    both = [p for p in policies if p.live and p.simulated]
    if not both:
        return None
    relative = [metric for metric in METRICS if metric.unit != "%"]
    bottom_px = _TOP_PX + _ROW_PX * len(relative)
    x = _around_zero([_relative(metric, p) or 0.0 for metric in relative for p in both])
    rows = "".join(_row(metric, policies, row, x) for row, metric in enumerate(relative))
    axis = x_axis(x, bottom_px, _tick, "simulated relative to live")
    return Figure(
        title="Simulated against live",
        note=f"Right of zero the simulation was too pessimistic; the band is \u00b1{share(_NEAR)}.",
        legend=policy_legend(policies, worlds=False),
        panels=[panel(_band(x, bottom_px), axis, rows, height_px=bottom_px + 42, label="Simulation errors")],
        columns=["metric", "policy", "live", "simulated", "error"],
        rows=[_told(metric, policy) for metric in METRICS for policy in both],
    )


def _relative(metric: Metric, policy: PolicyRuns) -> float | None:
    found = difference(metric, policy)
    return found.relative if found else None


def _around_zero(values: Sequence[float]) -> Scale:
    half = linear([1.5 * _NEAR, *map(abs, values)], 0, 1).high
    return Scale(-half, half, _NAMES_PX, RIGHT_PX)


def _tick(error: float) -> str:
    return f"{error * 100:+.0f}\u00a0%".replace("-", MINUS) if error else "0"


def _band(x: Scale, bottom_px: float) -> str:
    left, right = x.at(-_NEAR), x.at(_NEAR)
    shade = bar(left, _TOP_PX, right - left, bottom_px - _TOP_PX, "band")
    return shade + line([(x.at(0), _TOP_PX), (x.at(0), bottom_px)], "base")


def _row(metric: Metric, policies: Sequence[PolicyRuns], row: int, x: Scale) -> str:
    y = _TOP_PX + (row + 0.5) * _ROW_PX
    marks = [
        element("g", marker(i, x.at(error), y), class_=colour(i))
        for i, policy in enumerate(policies)
        if (error := _relative(metric, policy)) is not None
    ]
    rule = line([(_NAMES_PX, y), (RIGHT_PX, y)], "grid")
    return words(0, y + 4, metric.name, "name") + rule + "".join(marks)


def _told(metric: Metric, policy: PolicyRuns) -> list[str]:
    assert policy.live is not None
    assert policy.simulated is not None
    found = difference(metric, policy)
    shown = (fixed(metric.shown(run.measured), 1) for run in (policy.live, policy.simulated))
    values = [f"{text}\u00a0{metric.unit}" for text in shown]
    return [metric.name, policy.name, *values, found.text if found else MISSING]

"""Requests in flight over the run, a panel per policy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from millrace.bench.report.charts.figure import Figure, colour, small_panel, world_legend
from millrace.bench.report.charts.frame import (
    LEFT_PX,
    SMALL_RIGHT_PX,
    TOP_PX,
    steps,
    x_axis,
    y_axis,
)
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, Run, World
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import duration, tick

_HEIGHT_PX, _BASELINE_PX = 190, 148
_BINS = 150

Series = list[tuple[float, int]]
AllSeries = dict[tuple[str, World], Series]


def timeline(policies: Sequence[PolicyRuns]) -> Figure:
    """Draw, per policy, how many requests were sent (by the schedule) and not ended."""
    series: AllSeries = {(p.name, world): _peaks(run) for p in policies for world, run in p.worlds()}
    x = linear([t for one in series.values() for t, _ in one], LEFT_PX, SMALL_RIGHT_PX)
    y = linear([count for one in series.values() for _, count in one], _BASELINE_PX, TOP_PX + 6)
    return Figure(
        title="Requests in flight",
        note="Waiting and running together; the highest count in each moment.",
        legend=world_legend(policies),
        panels=[_panel(i, policy, series, x, y) for i, policy in enumerate(policies)],
        columns=["policy", "world", "mean", "highest", "last end"],
        rows=[[p.name, world, *_told(run)] for p in policies for world, run in p.worlds()],
    )


def in_flight(run: Run) -> Series:
    """Return every change: the moment in seconds and the count from then on."""
    ends = [(o.finished_s, -1) for o in run.outcomes if o.finished_s is not None]
    starts = [(o.scheduled_s, 1) for o in run.outcomes if o.finished_s is not None]
    changes = sorted(starts + ends, key=lambda change: (change[0], -change[1]))
    return list(zip((t for t, _ in changes), accumulate(step for _, step in changes), strict=True))


def _peaks(run: Run) -> Series:
    """Thin the changes out to the peak of each of a fixed number of intervals."""
    changes = in_flight(run)
    if len(changes) <= _BINS:
        return changes
    length_s = (changes[-1][0] or 1.0) / _BINS
    peaks: dict[int, int] = {}
    for moment_s, count in changes:
        place = int(moment_s / length_s)
        peaks[place] = max(count, peaks.get(place, 0))
    return [(place * length_s, count) for place, count in sorted(peaks.items())]


def _panel(index: int, policy: PolicyRuns, series: AllSeries, x: Scale, y: Scale) -> str:
    drawn = [
        steps([(x.at(t), y.at(count)) for t, count in series[policy.name, world]], f"line {world}")
        for world, _ in policy.worlds()
        if series[policy.name, world]
    ]
    axes = y_axis(y, lambda count: f"{count:g}", "requests", about=3, right_px=SMALL_RIGHT_PX)
    axes += x_axis(x, _BASELINE_PX, tick, "time")
    curves = element("g", *drawn, class_=colour(index))
    label = f"Requests in flight over time under {policy.name}"
    return small_panel(axes, curves, height_px=_HEIGHT_PX, label=label, heading=policy.name)


def _told(run: Run) -> list[str]:
    changes = in_flight(run)
    if not changes:
        return ["0", "0", duration(None)]
    busy_s = sum(o.e2e_s for o in run.outcomes if o.e2e_s is not None)
    mean = busy_s / run.measured.duration_s if run.measured.duration_s else 0.0
    return [f"{mean:.1f}", str(max(count for _, count in changes)), duration(changes[-1][0])]

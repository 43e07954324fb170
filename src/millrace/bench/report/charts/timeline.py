"""Requests in flight over the run, a panel per policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from millrace.bench.report.charts.figure import Figure, colour, small_panel, stroke, world_legend
from millrace.bench.report.charts.frame import LEFT_PX, SMALL_RIGHT_PX, TOP_PX, steps, x_axis, y_axis
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, Run
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import duration, tick

_HEIGHT_PX, _BASELINE_PX = 190, 148
_BINS = 150

Series = list[tuple[float, int]]


def timeline(policies: Sequence[PolicyRuns]) -> Figure:
    """Draw, per policy, how many requests were sent (by the schedule) and not ended."""
    curves = [[(stroke(world, policies), _peaks(run)) for world, run in p.worlds()] for p in policies]
    every = [point for drawn in curves for _, series in drawn for point in series]
    x = linear([moment_s for moment_s, _ in every], LEFT_PX, SMALL_RIGHT_PX)
    y = linear([count for _, count in every], _BASELINE_PX, TOP_PX + 6)
    return Figure(
        title="Requests in flight",
        note="Waiting and running together; the highest count in each moment.",
        legend=world_legend(policies),
        panels=[_panel(i, p.name, curves[i], x, y) for i, p in enumerate(policies)],
        columns=["policy", "world", "mean", "highest", "last end"],
        rows=[[p.name, world, *_told(run)] for p in policies for world, run in p.worlds()],
    )


def in_flight(run: Run) -> Series:
    """Return every change: the moment in seconds and the count from then on."""
    ended = [o for o in run.outcomes if o.finished_s is not None]
    changes = [(o.scheduled_s, 1) for o in ended] + [(o.finished_s or 0.0, -1) for o in ended]
    changes.sort(key=lambda change: (change[0], -change[1]))
    return list(zip((t for t, _ in changes), accumulate(step for _, step in changes), strict=True))


def _peaks(run: Run) -> Series:
    """Thin the changes out to the highest count in each of a fixed number of intervals."""
    changes = in_flight(run)
    return changes if len(changes) <= _BINS else list(_binned(changes, changes[-1][0] / _BINS))


def _binned(changes: Series, length_s: float) -> Iterator[tuple[float, int]]:
    """A count lasts until it changes, through intervals in which nothing happens."""
    count, place = 0, 0
    for i in range(_BINS):
        highest = count
        while place < len(changes) and changes[place][0] <= (i + 1) * length_s:
            count = changes[place][1]
            highest = max(highest, count)
            place += 1
        yield i * length_s, highest


def _panel(index: int, name: str, curves: Sequence[tuple[str, Series]], x: Scale, y: Scale) -> str:
    drawn = [
        steps([(x.at(moment_s), y.at(count)) for moment_s, count in series], f"line {dash}")
        for dash, series in curves
        if series
    ]
    axes = y_axis(y, lambda count: f"{count:g}", "requests", about=3, right_px=SMALL_RIGHT_PX)
    axes += x_axis(x, _BASELINE_PX, tick, "time")
    lines = element("g", *drawn, class_=colour(index))
    label = f"Requests in flight over time under {name}"
    return small_panel(axes, lines, height_px=_HEIGHT_PX, label=label, heading=name)


def _told(run: Run) -> list[str]:
    changes = in_flight(run)
    if not changes:
        return ["0", "0", duration(None)]
    busy_s = sum(o.e2e_s for o in run.outcomes if o.e2e_s is not None)
    mean = busy_s / run.measured.duration_s if run.measured.duration_s else 0.0
    return [f"{mean:.1f}", str(max(count for _, count in changes)), duration(changes[-1][0])]

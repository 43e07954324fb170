"""Percentiles of a latency per policy as nested bars, against the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from millrace.bench.report.charts.figure import Figure, colour, legend, panel
from millrace.bench.report.charts.frame import bar, limit_across, words, x_axis
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, World
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import duration, tick
from millrace.core.outcome import Measured
from millrace.core.stats import Summary

_START_PX, _END_PX, _TOP_PX = 74, 448, 22
_NAME_PX, _BAR_PX, _THICK_PX, _GAP_PX = 20, 15, 11, 12
_BARS = (("p99", "third"), ("p90", "second"), ("p50", "first"))


class _Row(NamedTuple):
    """One run: whose, where, and what it measured."""

    policy: int
    name: str
    world: World
    found: Summary | None
    y_px: float


def bullets(
    policies: Sequence[PolicyRuns],
    read: Callable[[Measured], Summary | None],
    *,
    title: str,
    limit_s: float | None,
) -> Figure:
    """Draw, per run, a bar to the median within one to p90 within one to p99."""
    rows = list(_layout(policies, read))
    bottom_px = rows[-1].y_px + _BAR_PX + _GAP_PX
    reached = [row.found.p99 for row in rows if row.found]
    x = linear([*reached, limit_s or 0.0], _START_PX, _END_PX)
    limit = ""
    if limit_s is not None:
        limit = limit_across(x, limit_s, f"SLO {tick(limit_s)}", top_px=12, bottom_px=bottom_px)
    bars = [_bars(row, x) for row in rows]
    texts = [_texts(row, x) for row in rows]
    drawn = (x_axis(x, bottom_px, tick, title), *bars, limit, *texts, *_names(rows))
    return Figure(
        title=f"{title} by policy",
        note="The number is the 99th percentile.",
        legend=legend([("ink first", "up to p50"), ("ink second", "p90"), ("ink third", "p99")]),
        panels=[panel(*drawn, height_px=bottom_px + 42, label=f"{title} by policy")],
        columns=["policy", "world", "p50", "p90", "p99"],
        rows=[[row.name, row.world, *_told(row.found)] for row in rows],
    )


def _layout(policies: Sequence[PolicyRuns], read: Callable[[Measured], Summary | None]) -> Iterator[_Row]:
    """Place the runs below each other, with room above each policy for its name."""
    y_px = float(_TOP_PX)
    for i, policy in enumerate(policies):
        y_px += _NAME_PX
        for world, run in policy.worlds():
            yield _Row(i, policy.name, world, read(run.measured), y_px)
            y_px += _BAR_PX
        y_px += _GAP_PX


def _bars(row: _Row, x: Scale) -> str:
    ends = [(x.at(getattr(row.found, point)), name) for point, name in _BARS if row.found]
    bars = (bar(x.start_px, row.y_px, end - x.start_px, _THICK_PX, name) for end, name in ends)
    return element("g", *bars, class_=colour(row.policy))


def _texts(row: _Row, x: Scale) -> str:
    world = words(0, row.y_px + 9, row.world, "tick")
    if row.found is None:
        return world + words(x.start_px, row.y_px + 9, "no completed request", "tick")
    return world + words(x.at(row.found.p99) + 6, row.y_px + 10, duration(row.found.p99))


def _names(rows: Sequence[_Row]) -> list[str]:
    """Each policy's name above the first of its rows."""
    firsts = {row.policy: row for row in reversed(rows)}
    return [words(0, row.y_px - 7, row.name, "name") for row in firsts.values()]


def _told(found: Summary | None) -> list[str]:
    return [duration(getattr(found, point) if found else None) for point in ("p50", "p90", "p99")]

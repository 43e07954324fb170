"""Percentiles of a latency per policy as nested bars, against the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.bench.report.charts.figure import Figure, colour, legend, panel
from millrace.bench.report.charts.frame import bar, limit_across, words, x_axis
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import duration, tick
from millrace.core.outcome import Measured
from millrace.core.stats import Summary

_START_PX, _END_PX, _TOP_PX = 74, 448, 22
_NAME_PX, _BAR_PX, _THICK_PX, _GAP_PX = 20, 15, 11, 12
_BARS = (("p99", "third"), ("p90", "second"), ("p50", "first"))


def bullets(
    policies: Sequence[PolicyRuns],
    read: Callable[[Measured], Summary | None],
    *,
    title: str,
    limit_s: float | None,
) -> Figure:
    """Draw, per run, a bar to the median within one to p90 within one to p99."""
    runs = [(p.name, world, read(run.measured)) for p in policies for world, run in p.worlds()]
    reached = [found.p99 for _, _, found in runs if found]
    x = linear([*reached, limit_s or 0.0], _START_PX, _END_PX)
    bottom_px = _TOP_PX + sum(_block_px(p) for p in policies)
    limit = ""
    if limit_s is not None:
        limit = limit_across(x, limit_s, f"SLO {tick(limit_s)}", top_px=8, bottom_px=bottom_px)
    drawn = _blocks(policies, read, x)
    axis = x_axis(x, bottom_px, tick, title)
    return Figure(
        title=f"{title} by policy",
        note="The number is the 99th percentile.",
        legend=legend([("ink first", "up to p50"), ("ink second", "p90"), ("ink third", "p99")]),
        panels=[panel(axis, drawn, limit, height_px=bottom_px + 42, label=f"{title} by policy")],
        columns=["policy", "world", "p50", "p90", "p99"],
        rows=[[name, world, *_told(found)] for name, world, found in runs],
    )


def _blocks(policies: Sequence[PolicyRuns], read: Callable[[Measured], Summary | None], x: Scale) -> str:
    drawn, top_px = [], float(_TOP_PX)
    for i, policy in enumerate(policies):
        rows = [words(0, top_px + 13, policy.name, "name")]
        for row, (world, run) in enumerate(policy.worlds()):
            y = top_px + _NAME_PX + row * _BAR_PX
            rows.append(words(0, y + 9, world, "tick"))
            rows.append(_bullet(read(run.measured), y, x))
        drawn.append(element("g", *rows, class_=colour(i)))
        top_px += _block_px(policy)
    return "".join(drawn)


def _bullet(found: Summary | None, y: float, x: Scale) -> str:
    if found is None:
        return words(x.start_px, y + 9, "no completed request", "tick")
    bars = [_bar(x, getattr(found, point), y, name) for point, name in _BARS]
    return "".join(bars) + words(x.at(found.p99) + 6, y + 10, duration(found.p99))


def _bar(x: Scale, value: float, y: float, name: str) -> str:
    return bar(x.start_px, y, x.at(value) - x.start_px, _THICK_PX, name)


def _block_px(policy: PolicyRuns) -> float:
    return _NAME_PX + _BAR_PX * len(list(policy.worlds())) + _GAP_PX


def _told(found: Summary | None) -> list[str]:
    return [duration(getattr(found, point) if found else None) for point in ("p50", "p90", "p99")]

"""How evenly each policy spread the work over the replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from millrace.bench.report.charts.figure import Figure, colour, small_panel, world_legend
from millrace.bench.report.charts.frame import (
    LEFT_PX,
    SMALL_RIGHT_PX,
    TOP_PX,
    bar,
    line,
    words,
    y_axis,
)
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, Run, World
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import share, significant

_HEIGHT_PX, _BASELINE_PX = 180, 148
_NAMED = 8
_WIDEST_PX = 46


def balance(policies: Sequence[PolicyRuns]) -> Figure | None:
    """Draw, per policy, the tokens that each replica computed; None if no replica is known."""
    work = {(p.name, world): computed_tokens(run) for p in policies for world, run in p.worlds()}
    replicas = sorted({replica for counts in work.values() for replica in counts})
    if not replicas:
        return None
    y = linear([n for counts in work.values() for n in counts.values()], _BASELINE_PX, TOP_PX + 6)
    return Figure(
        title="Balance of replicas",
        note="Tokens computed per replica: prompt tokens that were not cached, and answer tokens.",
        legend=world_legend(policies),
        panels=[_panel(i, p, work, replicas, y) for i, p in enumerate(policies)],
        columns=["policy", "world", *replicas, "busiest over mean"],
        rows=[[name, world, *_told(counts, replicas)] for (name, world), counts in work.items()],
    )


def computed_tokens(run: Run) -> Counter[str]:
    """Return the tokens each replica computed for requests it was given, as far as their answers told."""
    counts: Counter[str] = Counter()
    for o in run.outcomes:
        if o.replica is not None:
            counts[o.replica] += o.prompt_tokens - o.cached_tokens + o.output_tokens
    return counts


def _panel(
    index: int,
    policy: PolicyRuns,
    work: dict[tuple[str, World], Counter[str]],
    replicas: Sequence[str],
    y: Scale,
) -> str:
    room_px = (SMALL_RIGHT_PX - LEFT_PX) / len(replicas)
    columns = []
    for place, replica in enumerate(replicas):
        middle = LEFT_PX + (place + 0.5) * room_px
        heights = [(world, y.at(work[policy.name, world][replica])) for world, _ in policy.worlds()]
        columns.append(_column(heights, middle, min(_WIDEST_PX, room_px * 0.7)))
        if len(replicas) <= _NAMED:
            columns.append(words(middle, _BASELINE_PX + 17, replica, "tick", "middle"))
    drawn = element("g", *columns, class_=colour(index))
    base = line([(LEFT_PX, _BASELINE_PX), (SMALL_RIGHT_PX, _BASELINE_PX)], "base")
    label = f"Tokens computed by each replica under {policy.name}"
    axis = y_axis(y, significant, "tokens", about=3, right_px=SMALL_RIGHT_PX)
    return small_panel(axis, drawn, base, height_px=_HEIGHT_PX, label=label, heading=policy.name)


def _column(heights: Sequence[tuple[str, float]], middle: float, width: float) -> str:
    """Live is a bar, simulated a dashed line across it."""
    drawn = []
    for world, top in heights:
        if world == "live" or len(heights) == 1:
            drawn.append(bar(middle - width / 2, top, width, _BASELINE_PX - top, "column"))
        else:
            reach = width / 2 + 6
            drawn.append(line([(middle - reach, top), (middle + reach, top)], "line simulated"))
    return "".join(drawn)


def _told(counts: Counter[str], replicas: Sequence[str]) -> list[str]:
    mean = counts.total() / len(replicas)
    most = max(counts.values(), default=0)
    return [*(f"{counts[replica]:,}" for replica in replicas), share(most / mean if mean else None)]

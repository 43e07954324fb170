"""How evenly each policy spread the work over the replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from millrace.bench.report.charts.figure import Figure, colour, small_panel, world_legend
from millrace.bench.report.charts.frame import LEFT_PX, SMALL_RIGHT_PX, TOP_PX, bar, line, words, y_axis
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, Run
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import share, significant

_HEIGHT_PX, _BASELINE_PX = 180, 148
_LETTER_PX = 6.2
_WIDEST_PX, _OVERHANG_PX = 46, 6


def balance(policies: Sequence[PolicyRuns]) -> Figure | None:
    """Draw, per policy, the tokens that each replica computed; None if no replica is known."""
    work = [[computed_tokens(run) for _, run in p.worlds()] for p in policies]
    replicas = sorted({replica for runs in work for counts in runs for replica in counts})
    if not replicas:
        return None
    y = linear([n for runs in work for counts in runs for n in counts.values()], _BASELINE_PX, TOP_PX + 6)
    return Figure(
        title="Balance of replicas",
        note="Tokens computed per replica: prompt tokens that were not cached, and answer tokens.",
        legend=world_legend(policies),
        panels=[_panel(i, p.name, work[i], replicas, y) for i, p in enumerate(policies)],
        columns=["policy", "world", *replicas, "busiest over mean"],
        rows=[
            [p.name, world, *_told(counts, replicas)]
            for p, runs in zip(policies, work, strict=True)
            for (world, _), counts in zip(p.worlds(), runs, strict=True)
        ],
    )


def computed_tokens(run: Run) -> Counter[str]:
    """Return the tokens each replica computed for requests it was given, as far as their answers told."""
    counts: Counter[str] = Counter()
    for o in run.outcomes:
        if o.replica is not None:
            counts[o.replica] += max(0, o.prompt_tokens - o.cached_tokens) + o.output_tokens
    return counts


def _panel(index: int, name: str, runs: Sequence[Counter[str]], replicas: Sequence[str], y: Scale) -> str:
    room_px = (SMALL_RIGHT_PX - LEFT_PX) / len(replicas)
    drawn = []
    for place, replica in enumerate(replicas):
        middle = LEFT_PX + (place + 0.5) * room_px
        drawn.append(_column([y.at(counts[replica]) for counts in runs], middle, room_px))
        if len(replica) * _LETTER_PX <= room_px:
            drawn.append(words(middle, _BASELINE_PX + 17, replica, "tick", "middle"))
    columns = element("g", *drawn, class_=colour(index))
    base = line([(LEFT_PX, _BASELINE_PX), (SMALL_RIGHT_PX, _BASELINE_PX)], "base")
    axis = y_axis(y, significant, "tokens", about=3, right_px=SMALL_RIGHT_PX)
    label = f"Tokens computed by each replica under {name}"
    return small_panel(axis, columns, base, height_px=_HEIGHT_PX, label=label, heading=name)


def _column(tops: Sequence[float], middle: float, room_px: float) -> str:
    """The first run is a bar; a second, the simulation, is a dashed line across it."""
    width = min(_WIDEST_PX, room_px * 0.7)
    reach = width / 2 + _OVERHANG_PX
    column = bar(middle - width / 2, tops[0], width, _BASELINE_PX - tops[0], "column")
    across = [line([(middle - reach, top), (middle + reach, top)], "line simulated") for top in tops[1:]]
    return column + "".join(across)


def _told(counts: Counter[str], replicas: Sequence[str]) -> list[str]:
    mean = counts.total() / len(replicas)
    most = max(counts.values(), default=0)
    return [*(f"{counts[replica]:,}" for replica in replicas), share(most / mean if mean else None)]

"""Tokens of answers per second over the run, a panel per policy."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.bench.report.charts.figure import Figure, colour, small_panel, stroke, world_legend
from millrace.bench.report.charts.frame import LEFT_PX, SMALL_RIGHT_PX, TOP_PX, steps, x_axis, y_axis
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns, Run
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import significant, tick
from millrace.core.outcome import Outcome

_HEIGHT_PX, _BASELINE_PX = 190, 148
_BINS = 100


def rate(policies: Sequence[PolicyRuns]) -> Figure:
    """Draw, per policy, the tokens a second of all answers that completed, in equal intervals."""
    end_s = max((_end_s(run) for p in policies for _, run in p.worlds()), default=0.0) or 1.0
    curves = [[(world, token_rate(run, end_s)) for world, run in p.worlds()] for p in policies]
    x = linear([end_s], LEFT_PX, SMALL_RIGHT_PX)
    y = linear([r for drawn in curves for _, rates in drawn for r in rates], _BASELINE_PX, TOP_PX + 6)
    told = [[(stroke(world, policies), rates) for world, rates in drawn] for drawn in curves]
    return Figure(
        title="Tokens per second",
        note="Tokens of completed answers, each answer's as if evenly spread from its first to its last.",
        legend=world_legend(policies),
        panels=[_panel(i, p.name, told[i], end_s, (x, y)) for i, p in enumerate(policies)],
        columns=["policy", "world", "mean", "highest"],
        rows=[
            [p.name, world, significant(sum(rates) / _BINS), significant(max(rates))]
            for p, drawn in zip(policies, curves, strict=True)
            for world, rates in drawn
        ],
    )


def token_rate(run: Run, end_s: float, bins: int = _BINS) -> list[float]:
    """Return tokens per second in each of `bins` equal intervals from 0 to `end_s`."""
    length_s = end_s / bins
    tokens = [0.0] * bins
    for o in run.outcomes:
        answered = o.status == "completed" and o.output_tokens > 0
        if answered and o.first_token_s is not None and o.finished_s is not None:
            tokens[min(bins - 1, int(o.first_token_s / length_s))] += 1
            _spread(tokens, o, length_s)
    return [count / length_s for count in tokens]


def _spread(tokens: list[float], o: Outcome, length_s: float) -> None:
    """Add the tokens after the first."""
    begin_s, end_s, last = o.first_token_s or 0.0, o.finished_s or 0.0, len(tokens) - 1
    if end_s <= begin_s:
        tokens[min(last, int(end_s / length_s))] += o.output_tokens - 1
        return
    each = (o.output_tokens - 1) / (end_s - begin_s)
    for place in range(min(last, int(begin_s / length_s)), min(last, int(end_s / length_s)) + 1):
        within_s = min(end_s, (place + 1) * length_s) - max(begin_s, place * length_s)
        tokens[place] += each * max(0.0, within_s)


def _end_s(run: Run) -> float:
    return max((o.finished_s for o in run.outcomes if o.finished_s is not None), default=0.0)


def _panel(
    index: int,
    name: str,
    curves: Sequence[tuple[str, list[float]]],
    end_s: float,
    scales: tuple[Scale, Scale],
) -> str:
    x, y = scales
    begins = [x.at(place * end_s / _BINS) for place in range(_BINS + 1)]
    drawn = [
        steps(list(zip(begins, map(y.at, [*rates, rates[-1]]), strict=True)), f"line {dash}")
        for dash, rates in curves
    ]
    axes = y_axis(y, significant, "tokens/s", about=3, right_px=SMALL_RIGHT_PX)
    axes += x_axis(x, _BASELINE_PX, tick, "time")
    lines = element("g", *drawn, class_=colour(index))
    label = f"Tokens of answers per second over time under {name}"
    return small_panel(axes, lines, height_px=_HEIGHT_PX, label=label, heading=name)

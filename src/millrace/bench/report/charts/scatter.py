"""Time to first token against prompt length, coloured by how much of the prompt was cached."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from millrace.bench.report.charts.figure import Figure, legend, small_panel
from millrace.bench.report.charts.frame import (
    LEFT_PX,
    SMALL_RIGHT_PX,
    TOP_PX,
    Point,
    dots,
    limit_along,
    x_axis,
    y_axis,
)
from millrace.bench.report.model import PolicyRuns, Run
from millrace.bench.report.scale import Scale, linear, logarithmic
from millrace.bench.report.units import duration, share, significant, tick
from millrace.core.outcome import Outcome
from millrace.core.stats import percentile

_HEIGHT_PX, _BASELINE_PX = 240, 198
_CLASSES = 5
_BUCKETS = 4
_MOST_DOTS = 800


def scatter(policies: Sequence[PolicyRuns], *, limit_s: float | None) -> Figure:
    """Draw a panel per policy; of long runs, evenly spaced requests."""
    points = [[o for o in p.main.outcomes if o.ttft_s is not None and o.prompt_tokens] for p in policies]
    every = [o for one in points for o in one]
    x = linear([o.prompt_tokens for o in every], LEFT_PX + 6, SMALL_RIGHT_PX)
    y = logarithmic([o.ttft_s for o in every if o.ttft_s], _BASELINE_PX, TOP_PX + 6)
    limit = _limit(y, limit_s)
    steps = [f"{100 * k // _CLASSES}\u2013{100 * (k + 1) // _CLASSES}\u00a0%" for k in range(_CLASSES)]
    return Figure(
        title="TTFT and prompt length",
        note="Each dot is a request, coloured by the share of its prompt that was cached.",
        legend=legend([(f"dot d{k}", text) for k, text in enumerate(steps)], shape="M7 7h0"),
        panels=[_panel(p, one, x, y, limit) for p, one in zip(policies, points, strict=True)],
        columns=["policy", "prompt tokens", "requests", "cached", "TTFT p50", "TTFT p90"],
        rows=[row for p in policies for row in _told(p.name, p.main)],
    )


def _panel(policy: PolicyRuns, outcomes: Sequence[Outcome], x: Scale, y: Scale, limit: str) -> str:
    thinned = outcomes[:: 1 + len(outcomes) // _MOST_DOTS]
    classes: list[list[Point]] = [[] for _ in range(_CLASSES)]
    for o in thinned:
        classes[_class(o)].append((x.at(o.prompt_tokens), y.at(o.ttft_s or y.low)))
    clouds = [dots(points, f"dot d{k}") for k, points in enumerate(classes)]
    axes = y_axis(y, tick, "TTFT, log scale", about=3, right_px=SMALL_RIGHT_PX)
    axes += x_axis(x, _BASELINE_PX, significant, "prompt tokens")
    label = f"Time to first token against prompt length under {policy.name}"
    heading = f"{policy.name}, {policy.main_world}"
    return small_panel(axes, *clouds, limit, height_px=_HEIGHT_PX, label=label, heading=heading)


def _limit(y: Scale, limit_s: float | None) -> str:
    if limit_s is None or not y.low <= limit_s <= y.high:
        return ""
    return limit_along(y, limit_s, "SLO", right_px=SMALL_RIGHT_PX)


def _class(outcome: Outcome) -> int:
    return min(_CLASSES - 1, _CLASSES * outcome.cached_tokens // outcome.prompt_tokens)


def _told(name: str, run: Run) -> list[list[str]]:
    """One row per quarter of the requests, from short prompts to long ones."""
    known = sorted((o for o in run.outcomes if o.ttft_s is not None), key=lambda o: o.prompt_tokens)
    cuts = [len(known) * k // _BUCKETS for k in range(_BUCKETS + 1)]
    buckets = [known[a:b] for a, b in pairwise(cuts) if b > a]
    return [[name, *_bucket(bucket)] for bucket in buckets]


def _bucket(outcomes: Sequence[Outcome]) -> list[str]:
    waits_s = [o.ttft_s for o in outcomes if o.ttft_s is not None]
    prompt_tokens = sum(o.prompt_tokens for o in outcomes)
    cached = sum(o.cached_tokens for o in outcomes) / prompt_tokens if prompt_tokens else None
    span = f"{outcomes[0].prompt_tokens}\u2013{outcomes[-1].prompt_tokens}"
    points = [duration(percentile(waits_s, percent)) for percent in (50, 90)]
    return [span, str(len(outcomes)), share(cached), *points]

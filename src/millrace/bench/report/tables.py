"""The report's tables: policies compared, percentiles, errors, the slowest requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from millrace.bench.report.markup import element, escape
from millrace.bench.report.metrics import METRICS, REQUESTS, Metric, difference, lines, within
from millrace.bench.report.model import WORLDS, PolicyRuns, Run, RunReport
from millrace.bench.report.units import (
    MISSING,
    column_decimals,
    duration,
    fixed,
    signed_duration,
    significant,
)
from millrace.core.compare import Comparison, Estimate, Pair, compared, matched
from millrace.core.outcome import Measured, Outcome
from millrace.core.stats import Summary

SLOWEST = 15
AGAINST = (
    "Mean time later (+) or sooner (\u2212) than under {} for the requests that completed under both, with "
    "intervals that hold 95 % of the means of redrawn blocks of neighbouring requests."
)
SPENT = (
    "Modelled, for the whole fleet from beginning to end, waiting too, and for tokens of completed answers."
)
_KWH_J = 3.6e6
_STRETCH = {"preserveAspectRatio": "none", "aria_hidden": "true"}
_POINTS = ("min", "mean", "p50", "p75", "p90", "p95", "p99", "max")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, words: int = 2) -> str:
    """A table of plain text whose first `words` columns are words and the others numbers."""
    head = element("tr", *(_head(text, i < words) for i, text in enumerate(columns)))
    body = [element("tr", *(_cell(text, i < words) for i, text in enumerate(row))) for row in rows]
    return _framed(element("thead", head) + element("tbody", *body), caption)


def comparison(report: RunReport) -> str:
    """Every policy in every world, the extremes of repeats, and how far off the simulation was."""
    metrics = (REQUESTS, *METRICS)
    decimals = {m.key: _decimals(m, report) for m in metrics}
    head = "".join(_metric_heads(metrics))
    bodies = [element("tbody", *_rows(policy, metrics, decimals)) for policy in report.policies]
    return _framed(element("thead", head) + "".join(bodies), "Policies compared")


def percentiles(report: RunReport) -> str:
    """Every latency of every run, in milliseconds."""
    rows = [
        [label, policy.name, world, *_points(found)]
        for label, name in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
        for policy, world, run in report.runs()
        if (found := getattr(run.measured, name))
    ]
    gaps = [
        ["token gap", policy.name, world, *_points(run.token_gap_s)]
        for policy, world, run in report.runs()
        if run.token_gap_s
    ]
    columns = ["latency", "policy", "world", *(f"{point} ms" for point in _POINTS)]
    return table(columns, rows + gaps, caption="Percentiles of completed requests", words=3)


def against(report: RunReport) -> str:
    """How much later the other policies are than the first, world by world; empty if there is no other."""
    first, *others = report.policies
    rows = [
        [policy.name, world, *_later(compared(pairs))]
        for policy in others
        for world in WORLDS
        if (pairs := _pairs(first.all_of(world), policy.all_of(world)))
    ]
    columns = ["policy", "world", "requests", "TTFT", "95 % interval", "E2E", "95 % interval"]
    return table(columns, rows, caption=f"Later than {first.name}") if rows else ""


def spent(report: RunReport) -> str:
    """What each fleet cost, and for what it answered; empty if nothing of it is known."""
    known = [
        (policy.name, world, run.measured)
        for policy, world, run in report.runs()
        if (run.measured.cost_usd, run.measured.energy_j) != (None, None)
    ]
    columns = ["policy", "world", "dollars", "$ for 1M tokens", "kWh", "J/token"]
    rows = [[name, world, *_figures(measured)] for name, world, measured in known]
    return table(columns, rows, caption="Dollars and joules") if rows else ""


def slowest(policy: PolicyRuns) -> str:
    """The requests that waited longest for their first token, in the policy's main run."""
    known = [o for o in policy.main.outcomes if o.ttft_s is not None]
    worst = sorted(known, key=lambda o: o.ttft_s or 0.0, reverse=True)[:SLOWEST]
    longest_s = max((o.e2e_s or 0.0 for o in worst), default=0.0) or 1.0
    numbers = ("due at", "prompt", "cached", "answer", "TTFT", "E2E")
    columns = ("request", "replica", *numbers, "waiting, then answering")
    head = element("tr", *(_head(text, text not in numbers) for text in columns))
    body = [element("tr", *_slow_cells(o), element("td", _waterfall(o, longest_s))) for o in worst]
    caption = f"Slowest first tokens: {policy.name}, {policy.main_world}"
    return _framed(element("thead", head) + element("tbody", *body), caption)


def errors(report: RunReport) -> str:
    """What went wrong, by kind, with an example of each; empty if nothing did."""
    rows: list[list[str]] = []
    for policy, world, _, run in report.every():
        bad = [o for o in run.outcomes if o.status != "completed"]
        counts = Counter((o.status, _kind(o)) for o in bad)
        for (status, kind), count in counts.most_common():
            example = next(o for o in bad if (o.status, _kind(o)) == (status, kind))
            rows.append([policy.name, world, status, example.error or kind, example.id, f"{count:,}"])
    columns = ("policy", "world", "status", "for example", "request", "requests")
    return table(columns, rows, caption="Requests without an answer", words=5) if rows else ""


def _pairs(base: Sequence[Run], other: Sequence[Run]) -> list[Pair]:
    """Requests of like repeats, which were the same."""
    return [pair for a, b in zip(base, other, strict=False) for pair in matched(a.outcomes, b.outcomes)]


def _later(found: Comparison | None) -> list[str]:
    assert found is not None  # as there are pairs
    return [f"{found.requests:,}", *_interval(found.ttft_s), *_interval(found.e2e_s)]


def _interval(found: Estimate) -> list[str]:
    mean, low, high = (signed_duration(seconds) for seconds in (found.mean, found.low, found.high))
    return [mean, f"{low} to {high}"]


def _figures(measured: Measured) -> list[str]:
    kwh = None if measured.energy_j is None else measured.energy_j / _KWH_J
    figures = (measured.cost_usd, measured.usd_per_million_tokens, kwh, measured.energy_per_token_j)
    return [MISSING if value is None else significant(value) for value in figures]


def _rows(policy: PolicyRuns, metrics: Sequence[Metric], decimals: dict[str, int]) -> list[str]:
    rows: list[str] = []
    for world, numbers in lines(policy):
        name = element("th", escape(policy.name if not rows else ""), scope="row")
        values = (fixed(n, decimals[m.key]) for n, m in zip(numbers, metrics, strict=True))
        rows.append(element("tr", name, _cell(world, True), *(_cell(v, False) for v in values)))
    if policy.live and policy.simulated:
        rows.append(
            _aside("error", [found.text if (found := difference(m, policy)) else "" for m in METRICS])
        )
    if inside := within(policy):
        rows.append(_aside("in spread", inside))
    return rows


def _aside(name: str, texts: Sequence[str]) -> str:
    cells = [_cell("", False), *(_cell(text, False) for text in texts)]
    return element("tr", element("th", scope="row"), _cell(name, True), *cells, class_="error")


def _decimals(metric: Metric, report: RunReport) -> int:
    if metric is REQUESTS:
        return 0
    return column_decimals([metric.shown(run.measured) for *_, run in report.every()])


def _metric_heads(metrics: Sequence[Metric]) -> Iterable[str]:
    """Two rows: what metrics have in common, and below it what tells them apart, or their unit."""
    groups = [list(members) for _, members in groupby(metrics, key=lambda m: m.group)]
    yield element("tr", element("td", colspan="2"), *map(_group_head, groups))
    parts = (_head(m.label or m.unit, False) for m in metrics)
    yield element("tr", _head("policy", True), _head("world", True), *parts)


def _group_head(members: Sequence[Metric]) -> str:
    first, *others = members
    shape = "group" if others else "number"
    text = f"{first.group}, {first.unit}" if others else first.group
    return element("th", escape(text), scope="colgroup", colspan=str(len(members)), class_=shape)


def _points(found: Summary) -> list[str]:
    values: list[float | None] = [getattr(found, point) * 1e3 for point in _POINTS]
    return [fixed(value, column_decimals(values)) for value in values]


def _slow_cells(o: Outcome) -> list[str]:
    numbers = (f"{o.prompt_tokens:,}", f"{o.cached_tokens:,}", f"{o.output_tokens:,}")
    times = (duration(o.scheduled_s), *numbers, duration(o.ttft_s), duration(o.e2e_s))
    return [_cell(o.id, True), _cell(o.replica or "", True), *(_cell(text, False) for text in times)]


def _waterfall(o: Outcome, longest_s: float) -> str:
    """Waiting for the first token, then the rest, on one scale for the whole table."""
    waited, whole = (100 * (s or 0.0) / longest_s for s in (o.ttft_s, o.e2e_s))
    first = element("rect", width=waited, height=8, class_="wait")
    rest = element("rect", x=waited, width=max(0.0, whole - waited), height=8, class_="rest")
    return element("svg", first, rest, viewBox="0 0 100 8", class_="waterfall", **_STRETCH)


def _kind(o: Outcome) -> str:
    return (o.error or o.status).partition(":")[0]


def _framed(inside: str, caption: str) -> str:
    """Wide tables scroll in a frame of their own, which the keyboard can reach."""
    whole = element("table", element("caption", escape(caption)), inside)
    return element("div", whole, class_="frame", tabindex="0", role="region", aria_label=caption)


def _head(text: str, words: bool) -> str:
    return element("th", escape(text), scope="col", class_=None if words else "number")


def _cell(text: str, words: bool) -> str:
    return element("td", escape(text), class_=None if words else "number")

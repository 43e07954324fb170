"""The report's comparison as a table for the terminal, 80 columns wide if the numbers let it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from millrace.bench.report.metrics import METRICS, REQUESTS, Metric, difference, lines, within
from millrace.bench.report.model import PolicyRuns, RunReport
from millrace.bench.report.units import column_decimals, fixed, signed

_COLUMNS = (REQUESTS, *METRICS)
_ABOUT_ERRORS = "errors in %, those of cache hit and SLO in points"
_EXTREMES = ("lowest", "highest")

Row = list[Text]


def comparison(report: RunReport) -> Table:
    """Every policy in every world, numbers in the units of the header; below a simulated row, its errors."""
    worlds = {world for _, world, _ in report.runs()}
    compared = len(worlds) > 1
    caption = _about(report) if compared else f"all {worlds.pop()}"
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, caption=caption)
    table.add_column("policy", overflow="fold", vertical="bottom", min_width=11)
    for metric in _COLUMNS:
        table.add_column(_heading(metric), justify="right", no_wrap=True)
    decimals = {metric.key: _decimals(metric, report) for metric in _COLUMNS}
    for policy in report.policies:
        rows = _rows(policy, decimals) if compared else [_flat(policy, decimals)]
        for row in rows:
            table.add_row(*row)
    return table


def _about(report: RunReport) -> str:
    repeats = max(len(policy.repeats) for policy in report.policies)
    return f"medians of {repeats} repeats; {_ABOUT_ERRORS}" if repeats else _ABOUT_ERRORS


def _heading(metric: Metric) -> Text:
    words = (*metric.group.split(), metric.label, metric.unit)
    return Text("\n".join(filter(None, words)), justify="right")


def _decimals(metric: Metric, report: RunReport) -> int:
    if metric is REQUESTS:
        return 0
    return column_decimals([metric.shown(run.measured) for *_, run in report.every()])


def _flat(policy: PolicyRuns, decimals: dict[str, int]) -> Row:
    (_, numbers), *_ = lines(policy)
    return [Text(policy.name, style="bold"), *map(Text, _texts(numbers, decimals))]


def _rows(policy: PolicyRuns, decimals: dict[str, int]) -> Iterator[Row]:
    """The name, a row per world, how far the simulation was off, and whether repeats differ as much."""
    yield [Text(policy.name, style="bold")]
    for name, numbers in lines(policy):
        style = "dim" if name in _EXTREMES else ""
        yield [
            Text(f"  {name}", style=style),
            *(Text(text, style=style) for text in _texts(numbers, decimals)),
        ]
    found = [difference(metric, policy) for metric in METRICS]
    if any(found):
        errors = [signed(one.percent) if one else "" for one in found]
        yield [Text(text, style="dim") for text in ("  error", "", *errors)]
    if inside := within(policy):
        yield [Text(text, style="dim") for text in ("  in spread", "", *inside)]


def _texts(numbers: Sequence[float | None], decimals: dict[str, int]) -> list[str]:
    return [fixed(n, decimals[metric.key]) for n, metric in zip(numbers, _COLUMNS, strict=True)]

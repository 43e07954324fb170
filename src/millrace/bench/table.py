"""The report's comparison as a table for the terminal, 80 columns wide if the numbers let it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from millrace.bench.report.metrics import METRICS, REQUESTS, Metric, difference
from millrace.bench.report.model import PolicyRuns, Run, RunReport
from millrace.bench.report.units import column_decimals, fixed, signed

_COLUMNS = (REQUESTS, *METRICS)
_ABOUT_ERRORS = "errors in % of the live value; of cache hit and SLO in points"

Row = list[Text]


def comparison(report: RunReport) -> Table:
    """Every policy in every world, numbers in the units of the header; below a simulated row, its errors."""
    worlds = {world for _, world, _ in report.runs()}
    caption = _ABOUT_ERRORS if len(worlds) > 1 else f"all {worlds.pop()}"
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, caption=caption)
    table.add_column("policy", overflow="fold", vertical="bottom", min_width=11)
    for metric in _COLUMNS:
        table.add_column(_heading(metric), justify="right", no_wrap=True)
    decimals = {metric.key: _decimals(metric, report) for metric in _COLUMNS}
    for policy in report.policies:
        rows = _rows(policy, decimals) if caption is _ABOUT_ERRORS else [_flat(policy, decimals)]
        for row in rows:
            table.add_row(*row)
    return table


def _heading(metric: Metric) -> Text:
    words = (*metric.group.split(), metric.label, metric.unit)
    return Text("\n".join(filter(None, words)), justify="right")


def _decimals(metric: Metric, report: RunReport) -> int:
    if metric is REQUESTS:
        return 0
    return column_decimals([metric.shown(run.measured) for _, _, run in report.runs()])


def _flat(policy: PolicyRuns, decimals: dict[str, int]) -> Row:
    return [Text(policy.name, style="bold"), *_numbers(policy.main, decimals)]


def _rows(policy: PolicyRuns, decimals: dict[str, int]) -> Iterator[Row]:
    """The name, a row per world, and how far the simulation was off."""
    yield [Text(policy.name, style="bold")]
    for world, run in policy.worlds():
        yield [Text(f"  {world}"), *_numbers(run, decimals)]
    found = [difference(metric, policy) for metric in METRICS]
    if any(found):
        errors = [signed(one.percent) if one else "" for one in found]
        yield [Text(text, style="dim") for text in ("  error", "", *errors)]


def _numbers(run: Run, decimals: dict[str, int]) -> Row:
    return [Text(fixed(metric.shown(run.measured), decimals[metric.key])) for metric in _COLUMNS]

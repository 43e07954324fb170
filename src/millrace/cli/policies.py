"""`millrace policies`: what there is to choose from, in the policies' own words."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from millrace.cli.output import put_json, put_table
from millrace.policies import FAMILIES, Summary, summaries


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the policies of every family with their settings and sources."""
    found = [summary for family in FAMILIES for summary in summaries(family)]
    if as_json:
        put_json({"policies": found})
    else:
        put_table(_table(found))


def _table(found: list[Summary]) -> Table:
    table = Table(box=None, pad_edge=False, show_lines=False)
    for column in ("family", "policy", "what it does", "settings", "source"):
        table.add_column(column, overflow="fold", no_wrap=column in ("family", "policy"))
    for one in found:
        settings = ", ".join(f"{k}={v}" for k, v in one.settings.items())
        table.add_row(one.family, one.name, one.about, settings, one.source)
    return table

"""`millrace claims`: what papers claim, measured again here and now, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from msgspec.structs import asdict
from rich.table import Table

from millrace.claims import Receipt, Verdict, measure, names, receipt
from millrace.cli.output import EXIT_FAILED, EXIT_USAGE, CommandError, put_json, put_table, say


def run(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Receipts to measure.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Measure all of them; so does no name.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="List them, and measure nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure again what papers claim; exits with 1 if a claim does not hold."""
    if every and wanted:
        raise CommandError("--all measures every claim; leave it out, or the names", EXIT_USAGE)
    found = [receipt(name) for name in wanted or names()]
    if only_list:
        _show_list(found, as_json=as_json)
        return
    verdicts = [_measured(one.name) for one in found]
    if as_json:
        put_json({"claims": [_as_json(verdict) for verdict in verdicts]})
    else:
        put_table(_table(verdicts))
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)


def _measured(name: str) -> Verdict:
    verdict = measure(name)
    say(f"{name} {'holds' if verdict.passed else 'fails'} ({verdict.kind}), {verdict.seconds:.1f} s")
    return verdict


def _as_json(verdict: Verdict) -> dict[str, Any]:
    checks = [asdict(check) | {"passed": check.passed} for check in verdict.checks]
    return asdict(verdict) | {"checks": checks}


def _show_list(found: Sequence[Receipt], *, as_json: bool) -> None:
    if as_json:
        put_json({"claims": found})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("claim", "kind", "what is claimed", "paper"):
        table.add_column(column, overflow="fold", no_wrap=column in ("claim", "kind"))
    for one in found:
        table.add_row(one.name, one.kind, one.claimed, one.paper)
    put_table(table)


def _table(verdicts: Sequence[Verdict]) -> Table:
    """A line for what is claimed, and one for each figure."""
    table = Table(box=None, pad_edge=False)
    for column, right in (
        ("claim", False),
        ("figure", False),
        ("measured", True),
        ("limit", True),
        ("", False),
    ):
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=column == "claim"
        )
    for verdict in verdicts:
        table.add_row(verdict.name, verdict.claimed, verdict.kind, "", "holds" if verdict.passed else "FAILS")
        for check in verdict.checks:
            table.add_row("", f"  {check.what}", check.figure, check.limits, "" if check.passed else "fails")
    return table

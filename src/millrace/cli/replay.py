"""`millrace replay LOG`: feed a log's events to a bare controller and compare every action."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from millrace.cli.explaining import disagreements
from millrace.cli.output import EXIT_FAILED, put_json, put_table, say
from millrace.cli.route import as_objects, shadows
from millrace.control.hindsight import Comparisons
from millrace.control.log import LogError, Replayed, replay


def run(
    log: Annotated[Path, typer.Argument(help="An event log that a gateway or a simulation wrote.")],
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY[,POLICY]",
            help="Ask these routing policies at each decision too, as `millrace route shadow` does.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay an event log; exits 1 if any action differs from the one on record."""
    asking = None if shadow is None else Comparisons(shadows(shadow))
    try:
        with log.open("rb") as lines:
            result = replay(lines, witness=asking)
    except LogError as error:
        raise ValueError(f"{log}: {error}") from None
    if result.cut_off:
        say(f"{log}: the last line is cut off, as after a crash; it is left out")
    compared = [] if asking is None else asking.results()
    if as_json:
        put_json(result if asking is None else asdict(result) | {"shadows": as_objects(compared)})
    else:
        typer.echo(_sentence(result))
    if compared and not as_json:
        put_table(disagreements(compared))
    if result.first_difference is not None:
        raise typer.Exit(EXIT_FAILED)


def _sentence(result: Replayed) -> str:
    verdict = f"{result.events} events replayed: {result.identical} of {result.actions} actions identical"
    if result.first_difference is None:
        return verdict
    return f"{verdict}; the first difference is on line {result.first_difference}"

"""`millrace replay LOG`: feed a log's events to a bare controller and compare every action."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from millrace.cli.output import EXIT_FAILED, put_json, say
from millrace.control.log import LogError, Replayed, replay


def run(
    log: Annotated[Path, typer.Argument(help="An event log that a gateway or a simulation wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay an event log; exits 1 if any action differs from the one on record."""
    try:
        with log.open("rb") as lines:
            result = replay(lines)
    except LogError as error:
        raise ValueError(f"{log}: {error}") from None
    if result.cut_off:
        say(f"{log}: the last line is cut off, as after a crash; it is left out")
    if as_json:
        put_json(result)
    else:
        typer.echo(_sentence(result))
    if result.first_difference is not None:
        raise typer.Exit(EXIT_FAILED)


def _sentence(result: Replayed) -> str:
    verdict = f"{result.events} events replayed: {result.identical} of {result.actions} actions identical"
    if result.first_difference is None:
        return verdict
    return f"{verdict}; the first difference is on line {result.first_difference}"

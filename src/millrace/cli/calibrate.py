"""`millrace calibrate URL`: what a step of a live engine costs, measured from outside or read from a log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from millrace.cli.options import duration_s
from millrace.cli.output import EXIT_FAILED, EXIT_UNREACHABLE, CommandError, put_json, put_table, say, stderr
from millrace.core.calibration import Fitted, fitted
from millrace.core.calibration.recorded import COEFFICIENTS
from millrace.core.replica import Limits

if TYPE_CHECKING:
    from millrace.bench.calibrate.client import Served
    from millrace.bench.calibrate.live import Measured

SCHEMA = "millrace.calibrated/1"
DEFAULTS = Limits()


def run(
    url: Annotated[str | None, typer.Argument(help="The root of an idle OpenAI-shaped engine.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Write the calibration file here.")],
    model: Annotated[str | None, typer.Option(help="The model to ask for, if there are several.")] = None,
    from_log: Annotated[
        Path | None, typer.Option(help="Read this event log of a gateway instead of asking an engine.")
    ] = None,
    replica: Annotated[str | None, typer.Option(help="With --from-log: only this replica.")] = None,
    budget: Annotated[str, typer.Option(help="For how long to repeat the measurements.")] = "60s",
    max_num_batched_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens in one step of the engine, as it was started.")
    ] = DEFAULTS.step_tokens,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest sequence to measure; else what the engine says, at most 8192.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what an engine's steps cost, and write a calibration file for `millrace simulate`."""
    if (url is None) == (from_log is None):
        raise ValueError("give either the URL of an engine or --from-log FILE")
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is no URL of an engine; write it like http://127.0.0.1:8000")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file in it")
    if from_log is not None:
        found, details = _recorded(from_log, replica, max_num_batched_tokens)
    else:
        assert url is not None
        with _explained():
            found, details = asyncio.run(
                _live(url, model, duration_s(budget), max_num_batched_tokens, max_model_len)
            )
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found.cost.to_dict()), indent=2) + b"\n")
    report = _report(found, out, details)
    if as_json:
        put_json(report)
    else:
        put_table(_table(report))
    say(f"calibration  {out}; use it with millrace simulate --calibration {out}")


@contextmanager
def _explained() -> Iterator[None]:
    """Tell an engine that is not there from one that answers strangely."""
    from millrace.bench.calibrate.client import AnswerError, UnreachableError

    try:
        yield
    except UnreachableError as error:
        raise CommandError(str(error), EXIT_UNREACHABLE) from None
    except AnswerError as error:
        raise CommandError(str(error), EXIT_FAILED) from None


def _recorded(log: Path, replica: str | None, step_tokens: int) -> tuple[Fitted, dict[str, Any]]:
    from millrace.bench.calibrate.event_log import read_log

    found = read_log(log, step_tokens=step_tokens, replica=replica)
    source = f"event log {log.name}" + (f", replica {replica}" if replica else "")
    details = {"requests_finished": found.finished, "requests_alone": found.alone}
    return fitted(found.samples, source=source, coefficients=COEFFICIENTS), details


async def _live(
    url: str, model: str | None, budget_s: float, step_tokens: int, context_tokens: int | None
) -> tuple[Fitted, dict[str, Any]]:
    from millrace.bench.calibrate.client import Client
    from millrace.bench.calibrate.live import Asked, measure

    async with Client(url) as client:
        served = await client.served(model)
        asked = Asked(
            model=served.id,
            context_tokens=_context_tokens(served, context_tokens),
            step_tokens=step_tokens,
            budget_s=budget_s,
        )
        say(f"measuring {served.id} at {url}, with sequences of up to {asked.context_tokens} tokens")
        with _counting() as progress:
            measured = await measure(client, asked, progress)
    details = _details(measured, served.id)
    return fitted(measured.samples, source=f"{served.id}, measured by its client"), details


def _context_tokens(served: Served, asked_for: int | None) -> int:
    longest = served.max_model_len
    if asked_for is None:
        return min(longest or DEFAULTS.context_tokens, DEFAULTS.context_tokens)
    if longest is not None and asked_for > longest:
        raise ValueError(f"--max-model-len is {asked_for}; the engine says that it takes {longest} tokens")
    return asked_for


@contextmanager
def _counting() -> Iterator[Any]:
    """Show how far it is: one line that changes, or a line per round where nobody watches."""
    from rich.status import Status

    shown = Status("", console=stderr)

    def progress(number: int, total: int, round_number: int) -> None:
        line = f"round {round_number}: point {number} of {total}"
        if stderr.is_terminal:
            shown.update(line)
        elif number == 1:
            say(line)

    if not stderr.is_terminal:
        yield progress
        return
    with shown:
        yield progress


def _details(measured: Measured, model: str) -> dict[str, Any]:
    if measured.missed:
        kinds = ", ".join(f"{p.streams} x {p.context_tokens} + {p.prompt_tokens}" for p in measured.missed)
        say(f"not measured, as the engine did not run them together (streams x context + prompt): {kinds}")
    return {
        "model": model,
        "rounds": measured.rounds,
        "overhead_s": measured.overhead_s,
        "points_missed": len(measured.missed),
    }


def _report(found: Fitted, out: Path, details: dict[str, Any]) -> dict[str, Any]:
    fields = found.cost.to_dict()
    assert found.cost.error
    return {
        "schema": SCHEMA,
        "out": str(out),
        **details,
        "points_fitted": found.cost.error.fitted,
        "points_held_out": found.cost.error.held_out,
        "coefficients": {name: value for name, value in fields.items() if name.endswith("_s")},
        "error": {
            "mean": found.cost.error.mean,
            "p95": found.cost.error.p95,
            "mean_by_kind": found.errors,
        },
    }


def _table(report: dict[str, Any]) -> Table:
    table = Table("what", "value", box=None, pad_edge=False)
    for name, value in report["coefficients"].items():
        table.add_row(name, f"{value * 1e6:,.3f} us")
    for name in ("rounds", "requests_alone", "points_fitted", "points_held_out", "points_missed"):
        if name in report:
            table.add_row(name.replace("_", " "), f"{report[name]:,}")
    error = report["error"]
    for name, value in (("mean", error["mean"]), ("95th percentile", error["p95"])):
        table.add_row(f"held-out error, {name}", f"{value:.1%}")
    for kind, value in error["mean_by_kind"].items():
        table.add_row(f"held-out error, {kind}", f"{value:.1%}")
    return table

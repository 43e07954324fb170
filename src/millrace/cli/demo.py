"""`millrace demo`: a small real fleet, real traffic, two policies, live and simulated, and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from millrace.bench.demo.settings import DemoSettings
from millrace.cli.options import names_of, slo_of
from millrace.cli.output import (
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    CommandError,
    counting_bar,
    put_json,
    put_table,
    say,
)
from millrace.cli.stopping import run_until_told
from millrace.core.outcome import Measured, Outcome
from millrace.launch import LaunchError
from millrace.policies import load

DEFAULTS = DemoSettings()


def run(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the report and the logs.")] = DEFAULTS.out,
    engines: Annotated[int, typer.Option(min=1, help="Engines to start, one core each.")] = DEFAULTS.engines,
    routing: Annotated[str, typer.Option(help="Policies to compare, separated by commas.")] = ",".join(
        DEFAULTS.routing
    ),
    requests: Annotated[
        int, typer.Option(min=1, help="Requests of the trace to replay.")
    ] = DEFAULTS.requests,
    repeats: Annotated[int, typer.Option(min=1, help="How often to replay them.")] = DEFAULTS.repeats,
    speed: Annotated[float, typer.Option(help="How many times as fast as recorded.")] = DEFAULTS.speed,
    slo: Annotated[str, typer.Option(help="Objectives of a request.")] = "ttft=500ms,tpot=50ms",
    seed: Annotated[int, typer.Option(help="Decides the prompts.")] = DEFAULTS.seed,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Start engines and a gateway here, replay real traffic under each policy, live and simulated."""
    # Here and not above: the client's libraries take half a second that no other verb should pay.
    from millrace.bench.demo.run import run_demo
    from millrace.bench.report.files import summary
    from millrace.bench.table import comparison

    policies = tuple(names_of(routing))
    for name in policies:
        load("routing", name)
    settings = DemoSettings(
        out=out,
        engines=engines,
        routing=policies,
        repeats=repeats,
        requests=requests,
        speed=speed,
        slo=slo_of(slo),
        seed=seed,
    )
    with _telling() as told:
        try:
            report, written = run_until_told(run_demo(settings, told))
        except LaunchError as error:
            hint = "Is the engine's extra installed? pip install 'millrace[engine]'"
            raise CommandError(f"{error}\n{hint}", EXIT_UNREACHABLE) from None
    if as_json:
        put_json(summary(report))
    else:
        put_table(comparison(report))
    say(f"report  {written.html}\ndata    {written.json}  {written.requests}\nevents  {out}/events-*.jsonl")
    live = [run.measured for _, world, _, run in report.every() if world == "live"]
    say(_accounts(live))
    if any(run.completed < run.requests for run in live):
        raise typer.Exit(EXIT_FAILED)


def _accounts(live: Sequence[Measured]) -> str:
    """Say what became of every request that was sent."""
    fields = ("requests", "completed", "refused", "failed", "cancelled")
    sent, *ends = (sum(getattr(run, field) for run in live) for field in fields)
    return f"{sent} requests sent live: " + ", ".join(
        f"{n} {what}" for n, what in zip(ends, fields[1:], strict=True)
    )


class _Told:
    """Progress for a person: lines, and one bar at a time."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False)

    def counting(self, what: str, total: int) -> Callable[[Outcome], None]:
        task = self._bar.add_task(what, total=total)
        return lambda _: self._bar.advance(task)


@contextmanager
def _telling() -> Iterator[_Told]:
    with counting_bar() as bar:
        yield _Told(bar)

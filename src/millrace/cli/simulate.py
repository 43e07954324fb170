"""`millrace simulate`: a trace through a fleet under several policies, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from millrace.cli.options import names_of, slo_of
from millrace.cli.output import put_json, put_table, stderr
from millrace.control import Controller, ControlSettings
from millrace.core.cost import Linear, Roofline
from millrace.core.fleet_spec import FleetGroup, parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.trace.reshape import first, scale_lengths, scale_rate
from millrace.data import calibrations, open_calibration, open_trace
from millrace.policies import load
from millrace.simulate import Simulation, jobs_of, servers, simulate

SCHEMA = "millrace.simulation/1"


def run(
    *,
    trace: Annotated[
        str, typer.Option(help="A shipped name (azure_conv_2023, mooncake_conversation) or a path.")
    ],
    fleet: Annotated[str, typer.Option(help='What to run it on, like "8x a100-80g llama-3-8b tp=1".')],
    routing: Annotated[str, typer.Option(help="Policies to compare, separated by commas.")] = "least_work",
    queueing: Annotated[str, typer.Option(help="Queueing policy.")] = "fcfs",
    batching: Annotated[str, typer.Option(help="Batching policy of every replica.")] = "split_fuse",
    calibration: Annotated[
        str | None,
        typer.Option(help="Price steps by this calibration (shipped name or file), not by data sheets."),
    ] = None,
    slo: Annotated[str, typer.Option(help="Objectives of a request.")] = "ttft=1s,tpot=50ms",
    requests: Annotated[int | None, typer.Option(min=0, help="Only the first so many requests.")] = None,
    rate: Annotated[float, typer.Option(help="Let requests come this many times as fast.")] = 1.0,
    input_scale: Annotated[float, typer.Option(help="Multiply prompt lengths by this.")] = 1.0,
    output_scale: Annotated[float, typer.Option(help="Multiply answer lengths by this.")] = 1.0,
    max_hold: Annotated[float, typer.Option(help="Seconds a request may be held.")] = 30.0,
    log: Annotated[
        Path | None,
        typer.Option(help="Write the event log here; -NAME is added for each of several policies."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay a trace in virtual time under each routing policy, and compare. Every figure is simulated."""
    groups, objectives = parse_fleet(fleet), slo_of(slo)
    policies = {name: load("routing", name) for name in names_of(routing)}
    fleet_servers = servers(groups, partial(_cost, calibration))
    others = load("queueing", queueing), load("batching", batching), ControlSettings(max_hold_s=max_hold)
    records = scale_rate(open_trace(trace), rate)
    records = scale_lengths(records, input_factor=input_scale, output_factor=output_scale)
    if requests is not None:
        records = first(records, requests)
    jobs = sorted(jobs_of(records, groups[0].model.name, objectives), key=lambda job: job.t_s)
    results: dict[str, Simulation] = {}
    with _bar() as bar, ExitStack() as files:
        for name, policy in policies.items():
            task = bar.add_task(name, total=len(jobs))
            results[name] = simulate(
                jobs,
                fleet_servers,
                Controller(policy, others[0], others[2]),
                others[1],
                slo=objectives,
                log=_log_writer(files, log, name if len(policies) > 1 else None),
                progress=partial(_advance, bar, task),
            )
    if as_json:
        put_json(report(results, groups, calibration, trace=trace, fleet=fleet, slo=objectives))
    else:
        put_table(_table(results))


def _cost(calibration: str | None, group: FleetGroup) -> Linear | Roofline:
    """The calibration asked for, or one that ships for this model on this device, or the data sheet."""
    shipped = f"{group.model.name}-{group.device.name}"
    if calibration is not None or shipped in calibrations():
        return open_calibration(calibration or shipped)
    return group.roofline


def report(
    results: dict[str, Simulation], groups: Sequence[FleetGroup], calibration: str | None, **asked: object
) -> dict[str, Any]:
    """Return what `--json` prints; `asked` is echoed."""
    return {
        "schema": SCHEMA,
        **asked,
        "cost_models": {
            f"{group.model.name} on {group.device.name}": _cost(calibration, group).expected_error
            for group in groups
        },
        "policies": [
            {
                "name": name,
                **msgspec.structs.asdict(found.measured),
                "throughput": found.measured.throughput_rps,
                "simulated_s": found.simulated_s,
                "wall_s": found.wall_s,
            }
            for name, found in results.items()
        ],
    }


def _log_writer(files: ExitStack, log: Path | None, name: str | None) -> Callable[[bytes], object] | None:
    if log is None:
        return None
    path = log if name is None else log.with_name(f"{log.stem}-{name}{log.suffix}")
    return files.enter_context(path.open("wb")).write


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def _advance(bar: Progress, task: TaskID, _: Outcome) -> None:
    bar.advance(task)


def _table(results: dict[str, Simulation]) -> Table:
    table = Table(box=None, pad_edge=False, caption="simulated; times in seconds", caption_justify="left")
    table.add_column("policy")
    for column in (
        "requests",
        "completed",
        *_latency_columns(),
        "tokens/s",
        "cache hit",
        "SLO met",
        "ran in",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in results.items():
        table.add_row(name, *_cells(found))
    return table


def _latency_columns() -> list[str]:
    return [f"{metric} {point}" for metric in ("TTFT", "TPOT", "E2E") for point in ("p50", "p99")]


def _cells(found: Simulation) -> list[str]:
    got = found.measured
    latencies = [
        f"{getattr(summary, point):.3f}" if summary else "-"
        for summary in (got.ttft_s, got.tpot_s, got.e2e_s)
        for point in ("p50", "p99")
    ]
    shares = [f"{got.cache_hit_ratio:.1%}", f"{got.slo_attainment:.1%}"]
    tokens = f"{got.throughput_tokens_per_s:,.0f}"
    return [f"{got.requests:,}", f"{got.completed:,}", *latencies, tokens, *shares, f"{found.wall_s:.1f} s"]

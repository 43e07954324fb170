"""`millrace simulate`: a trace through a fleet under several policies, in virtual time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from millrace.cli.options import names_of
from millrace.cli.output import put_json, put_table, stderr
from millrace.cli.simulating import options, results, search
from millrace.cli.simulating.scenario import Scenario, Task, carry_out
from millrace.core.outcome import Outcome
from millrace.policies import load
from millrace.simulate import Simulation


def run(
    *,
    trace: options.TraceName,
    fleet: options.Fleet,
    routing: options.Routing = "least_work",
    queueing: options.Queueing = "fcfs",
    batching: options.Batching = "split_fuse",
    calibration: options.Calibration = None,
    slo: options.Objectives = "ttft=1s,tpot=50ms",
    requests: options.Requests = None,
    rate: options.Rate = 1.0,
    input_scale: options.InputScale = 1.0,
    output_scale: options.OutputScale = 1.0,
    max_hold: options.MaxHold = 30.0,
    find: options.Find = None,
    attain: options.Attain = 0.95,
    processes: options.Processes = 1,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay a trace in virtual time under each routing policy, and compare. Every figure is simulated."""
    scenario = Scenario(
        trace=trace,
        fleet=fleet,
        queueing=queueing,
        batching=batching,
        calibration=calibration,
        slo=slo,
        requests=requests,
        rate=rate,
        input_scale=input_scale,
        output_scale=output_scale,
        max_hold_s=max_hold,
    )
    policies = _checked(scenario, routing)
    if find:
        found = search.search_all(scenario, policies, goal=attain, processes=processes)
        search.warn(found)
        if as_json:
            put_json(search.result(scenario, found, goal=attain))
        else:
            put_table(search.table(found))
        return
    ran = _compare(scenario, policies, log)
    if as_json:
        put_json(results.report(ran, scenario))
    else:
        put_table(results.table(ran))


def _checked(scenario: Scenario, routing: str) -> list[str]:
    """Return the policies' names; complain of what cannot be built before anything takes long."""
    policies = names_of(routing)
    if not policies:
        raise ValueError("--routing names no policy; name one, like least_work")
    _ = scenario.objectives, scenario.servers(), load("queueing", scenario.queueing)
    for name in policies:
        load("routing", name)
    scenario.batching_policy()
    return policies


def _compare(scenario: Scenario, policies: list[str], log: Path | None) -> dict[str, Simulation]:
    ran: dict[str, Simulation] = {}
    with _bar() as bar:
        for name in policies:
            count = bar.add_task(name, total=len(scenario.records))
            own_log = _named(log, name if len(policies) > 1 else None)
            task = Task(scenario=scenario, policy=name, log=own_log)
            ran[name] = carry_out(task, partial(_advance, bar, count))
    return ran


def _named(path: Path | None, name: str | None) -> Path | None:
    """Return the path with the policy's name in it."""
    return path.with_name(f"{path.stem}-{name}{path.suffix}") if path and name else path


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def _advance(bar: Progress, task: TaskID, _: Outcome) -> None:
    bar.advance(task)

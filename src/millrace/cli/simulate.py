"""`millrace simulate`: a trace through a fleet under several policies, in virtual time."""

from __future__ import annotations

from millrace.cli.options import names_of
from millrace.cli.output import put_json, put_table
from millrace.cli.simulating import files, options, results, runs, search
from millrace.cli.simulating.scenario import Scenario
from millrace.policies import load


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
    repeat: options.Repeat = 1,
    sensitivity: options.Sensitivity = False,
    processes: options.Processes = 1,
    log: options.Log = None,
    requests_out: options.RequestsOut = None,
    report: options.Report = None,
    chrome_trace: options.ChromeTrace = None,
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
        if sensitivity or log or requests_out or report or chrome_trace:
            raise ValueError("--find prints its result only: leave out --sensitivity and files to write")
        found = search.search_all(scenario, policies, goal=attain, repeat=repeat, processes=processes)
        _show_capacity(found, scenario, attain, as_json=as_json)
        return
    tasks = runs.tasks_of(
        scenario, policies, repeat=repeat, sensitivity=sensitivity, log=log, lanes=chrome_trace
    )
    every = runs.run_all(list(tasks), processes=processes)
    if requests_out:
        files.write_requests(requests_out, every)
    if report:
        files.write_report(report, every, scenario)
    _show(every, scenario, as_json=as_json)


def _show_capacity(found: list[search.Found], scenario: Scenario, goal: float, *, as_json: bool) -> None:
    search.warn(found)
    if as_json:
        put_json(search.result(scenario, found, goal=goal))
    else:
        put_table(search.table(found))


def _show(every: list[runs.Ran], scenario: Scenario, *, as_json: bool) -> None:
    if as_json:
        put_json(results.report(every, scenario))
        return
    for table in results.tables(every):
        put_table(table)


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

"""`millrace simulate`: a trace through a fleet under several policies, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from millrace.cli import knowing, patience, predicting, waiting
from millrace.cli.options import names_of
from millrace.cli.output import put_json, put_table, say
from millrace.cli.patience import BUDGET, PATIENCE
from millrace.cli.simulating import files, options, pools, results, runs, search
from millrace.cli.simulating.scenario import Scenario

NOT_TO_FIND = ("sensitivity", "energy", "itl", "log", "requests_out", "report", "chrome_trace")


def run(
    *,
    trace: options.TraceName,
    requests: options.Requests = None,
    rate: options.Rate = 1.0,
    lengths: options.Lengths = 1.0,
    input_scale: options.InputScale = 1.0,
    output_scale: options.OutputScale = 1.0,
    models: options.Models = None,
    adapters: options.Adapters = None,
    media: pools.Media = None,
    closed_loop: options.ClosedLoop = False,
    think: options.Think = None,
    slo: options.Objectives = "ttft=1s,tpot=50ms",
    fleet: options.Fleet,
    profile: options.Profile = None,
    calibration: options.Calibration = None,
    cold_start: options.ColdStart = None,
    load_bandwidth: options.LoadBandwidth = None,
    cache_pool: pools.CachePool = None,
    routing: options.Routing = "millrace",
    queueing: options.Queueing = "fcfs",
    batching: options.Batching = "split_fuse",
    migration: options.Migration = None,
    max_attempts: patience.MaxAttempts = PATIENCE.max_attempts,
    retry_ratio: patience.RetryRatio = BUDGET.ratio,
    retry_reserve: patience.RetryReserve = BUDGET.reserve,
    retry_floor: patience.RetryFloor = BUDGET.floor_per_s,
    max_held: patience.MaxHeld = PATIENCE.max_held,
    max_hold_s: patience.MaxHold = PATIENCE.max_hold_s,
    max_waiting: patience.MaxWaiting = None,
    prefix_knowledge: knowing.Knowledge = "answers",
    prefix_ttl: knowing.Ttl = None,
    prefix_index_bytes: knowing.IndexBytes = PATIENCE.prefix_index_bytes,
    block_tokens: knowing.SimulatedBlockTokens = None,
    queue_rule: waiting.Rules = None,
    faults: options.Faults = None,
    failover: options.Failover = "off",
    scrape: options.Scrape = None,
    network: options.Network = None,
    slowdowns: options.Slowdowns = None,
    link: options.LinkSpeed = None,
    find: options.Find = None,
    attain: options.Attain = 0.95,
    repeat: options.Repeat = 1,
    sensitivity: options.Sensitivity = False,
    energy: options.Energy = False,
    itl: options.Itl = False,
    processes: options.Processes = 1,
    as_json: options.AsJson = False,
    requests_out: options.RequestsOut = None,
    report: options.Report = None,
    chrome_trace: options.ChromeTrace = None,
    log: options.Log = None,
    log_scores: options.LogScores = False,
    predictor: predicting.PredictorFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Replay a trace in virtual time under each routing policy, and compare. Every figure is simulated."""
    _simulate(locals())


def _simulate(given: Mapping[str, Any]) -> None:
    """Do what the options, by their parameters' names, ask for."""
    quiet, as_json = given["quiet"], given["as_json"]
    policies = _checked(scenario := _scenario(given), given["routing"], given["find"])
    if given["find"]:
        _refuse(*(given[name] for name in NOT_TO_FIND))
        again = {name: given[name] for name in ("repeat", "processes")}
        _search(scenario, policies, given["attain"], quiet=quiet, as_json=as_json, **again)
        return
    every = _run_all(scenario, policies, given)
    where = _write(every, scenario, given["requests_out"], given["report"])
    _show(every, scenario, where, quiet=quiet, as_json=as_json)


def _scenario(given: Mapping[str, Any]) -> Scenario:
    if given["log_scores"] and given["log"] is None:
        raise ValueError("--log-scores is about the log: say --log FILE too")
    # The parameters that the verb itself does not use are the scenario's fields, by the same names.
    asked = {name: given[name] for name in Scenario.__struct_fields__}
    asked["predictor"] = asked["predictor"] and str(asked["predictor"])
    return Scenario(**asked | {"itl": given["itl"] or given["report"] is not None})


def _run_all(scenario: Scenario, policies: list[str], given: Mapping[str, Any]) -> list[runs.Ran]:
    tasks = runs.tasks_of(
        scenario,
        policies,
        repeat=given["repeat"],
        sensitivity=given["sensitivity"],
        log=given["log"],
        lanes=given["chrome_trace"],
        report=given["report"],
    )
    return runs.run_all(list(tasks), processes=given["processes"], quiet=given["quiet"])


def _refuse(*beside_find: object) -> None:
    if any(beside_find):
        raise ValueError("--find prints its result only: leave out --sensitivity, --energy, --itl and files")


def _search(
    scenario: Scenario,
    policies: list[str],
    goal: float,
    *,
    repeat: int,
    processes: int,
    quiet: bool,
    as_json: bool,
) -> None:
    found = search.search_all(scenario, policies, goal=goal, repeat=repeat, processes=processes, quiet=quiet)
    _tell([*scenario.notes(), *search.notes(found)], quiet=quiet)
    if as_json:
        put_json(search.result(scenario, found, goal=goal))
    else:
        put_table(search.table(found))
        put_table(results.price_table(scenario))


def _write(
    every: list[runs.Ran], scenario: Scenario, requests_out: Path | None, report: Path | None
) -> list[str]:
    """Write the files that were asked for; return the words that say where the report is."""
    if requests_out:
        files.write_requests(requests_out, every)
    return [files.write_report(report, every, scenario)] if report else []


def _show(every: list[runs.Ran], scenario: Scenario, where: list[str], *, quiet: bool, as_json: bool) -> None:
    _tell([*scenario.notes(), *runs.notes(every, scenario), *where], quiet=quiet)
    if as_json:
        put_json(results.report(every, scenario))
        return
    for table in results.tables(every):
        put_table(table)
    put_table(results.price_table(scenario))


def _tell(notes: Iterable[str], *, quiet: bool) -> None:
    for note in () if quiet else notes:
        say(note)


def _checked(scenario: Scenario, routing: str, find: options.Find) -> list[str]:
    """Return the policies' names; complain of what cannot be built before anything takes long."""
    policies = names_of(routing)
    if not policies:
        raise ValueError("--routing names no policy; name one, like least_work")
    if find and scenario.closed_loop:
        raise ValueError("--find capacity sets the rate, and --closed-loop lets it follow: leave it out")
    if scenario.think is not None and not scenario.closed_loop:
        raise ValueError("--think is for conversations whose turns wait: say --closed-loop too")
    if scenario.patience.rules.saturation is not None and scenario.scrape is None:
        raise ValueError("--queue-rule: saturation goes by what engines report: say --scrape 1s too")
    if scenario.profile and scenario.calibration is not None:
        raise ValueError("--profile and --calibration both price steps: leave out one of them")
    pools.check(
        scenario.groups,
        media=scenario.images is not None,
        pool=scenario.cache_pool is not None,
        energy=scenario.energy,
        migration=scenario.migration,
    )
    sizes = {group.limits.block_tokens for group in scenario.groups}
    if scenario.prefix_knowledge == "events" and {scenario.block_tokens} - sizes - {None}:
        raise ValueError(
            f"--block-tokens is {scenario.block_tokens}, but engines tell of blocks of {min(sizes)}: leave "
            "it out, or set block_size in --fleet"
        )
    _ = scenario.objectives, scenario.naming, scenario.surroundings, scenario.patience, scenario.servers()
    for name in policies:
        scenario.controller(name)
    batchings = names_of(scenario.batching)
    if find and len(batchings) > 1:
        raise ValueError("--find searches with one batching policy: name one, like --batching split_fuse")
    for name in batchings or [scenario.batching]:
        scenario.batching_policy(name)
    if scenario.closed_loop:
        scenario.workload()
    return policies

"""`--find capacity`: one search per policy, in this process or in several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from rich.table import Table

from millrace.cli.output import say
from millrace.cli.simulating.scenario import Scenario
from millrace.simulate.capacity import Capacity, Probe, attempt, find_capacity, servable
from millrace.simulate.repeat import spread

SCHEMA = "millrace.capacity/1"


class Search(Struct, frozen=True, kw_only=True):
    """What to search for: for which policy, and the share of requests that must meet the objectives."""

    scenario: Scenario
    policy: str
    goal: float


class Found(Struct, frozen=True, kw_only=True):
    """A policy's capacity; `unservable` requests are too long for every engine, and were left out."""

    policy: str
    capacity: Capacity
    unservable: int


def search_all(scenario: Scenario, policies: Sequence[str], *, goal: float, processes: int) -> list[Found]:
    """Search each policy's capacity, in the order of the policies."""
    searches = [Search(scenario=scenario, policy=name, goal=goal) for name in policies]
    return list(spread(_search, searches, processes=processes))


def result(scenario: Scenario, found: Sequence[Found], *, goal: float) -> dict[str, Any]:
    """Return what `--find capacity --json` prints."""
    return {
        "schema": SCHEMA,
        "trace": scenario.trace,
        "fleet": scenario.fleet,
        "slo": scenario.objectives,
        "attain": goal,
        "unservable": found[0].unservable,
        "cost_models": scenario.expected_errors(),
        "policies": [_policy(one) for one in found],
    }


def table(found: Sequence[Found]) -> Table:
    """The same for people."""
    shown = Table(box=None, pad_edge=False, caption="simulated; requests per second", caption_justify="left")
    shown.add_column("policy")
    for column in ("capacity", "95 % from", "to", "runs"):
        shown.add_column(column, justify="right", no_wrap=True)
    for one in found:
        got = one.capacity
        beyond = "" if got.bounded else " or more"
        rates = (f"{got.capacity_rps:.3f}{beyond}", f"{got.low_rps:.3f}", f"{got.high_rps:.3f}")
        shown.add_row(one.policy, *rates, str(len(got.tried)))
    return shown


def warn(found: Sequence[Found]) -> None:
    """Say on stderr what the figures leave out."""
    if left_out := found[0].unservable:
        say(
            f"{left_out:,} requests are longer than any replica allows and were left out; "
            "raise max_model_len in --fleet to take them"
        )


def _search(search: Search) -> Found:
    scenario, policy = search.scenario, search.policy
    fleet = scenario.servers()
    every = scenario.jobs()
    fitting = servable(every, fleet)
    if len(fitting) < 2 or fitting[0].t_s == fitting[-1].t_s:
        raise ValueError("the trace has no rate: fewer than two requests at different times fit this fleet")
    recorded_rps = (len(fitting) - 1) / (fitting[-1].t_s - fitting[0].t_s)
    kept = {job.request.id for job in fitting}

    def probe(rate_rps: float) -> Probe:
        jobs = [job for job in scenario.jobs(speed=rate_rps / recorded_rps) if job.request.id in kept]
        batching = scenario.batching_policy()
        return attempt(
            jobs, fleet, scenario.controller(policy), batching, slo=scenario.objectives, goal=search.goal
        )

    capacity = find_capacity(probe, recorded_rps, goal=search.goal)
    return Found(policy=policy, capacity=capacity, unservable=len(every) - len(fitting))


def _policy(one: Found) -> dict[str, Any]:
    got = one.capacity
    return {
        "name": one.policy,
        "capacity_rps": got.capacity_rps,
        "low_rps": got.low_rps,
        "high_rps": got.high_rps,
        "bounded": got.bounded,
        "probes": [
            {"rate_rps": tried.rate_rps, "attained": tried.probe.attained, "whole": bool(tried.probe.met)}
            for tried in got.tried
        ],
    }

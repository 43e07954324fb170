"""`--find capacity`: one search per policy, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from rich.progress import Progress
from rich.table import Table

from millrace.cli.output import counting_bar
from millrace.cli.serving import in_options
from millrace.cli.simulating.results import prices
from millrace.cli.simulating.scenario import Scenario
from millrace.simulate.capacity import Capacity, Probe, attempt, find_capacity, servable
from millrace.simulate.repeat import spread

SCHEMA = "millrace.capacity/1"


class Search(Struct, frozen=True, kw_only=True):
    """What to search for: for which policy, the share of requests that must meet the objectives, arrivals."""

    scenario: Scenario
    policy: str
    goal: float
    seed: int = 0


class Found(Struct, frozen=True, kw_only=True):
    """A policy's capacity for the trace as it is, and for each further seed's arrivals.

    `unservable` requests are too long for every engine, and were left out.
    """

    policy: str
    capacity: Capacity
    unservable: int
    repeats: list[Capacity] = []

    @property
    def low_rps(self) -> float:
        """The lowest end of the intervals of all seeds."""
        return min(one.low_rps for one in (self.capacity, *self.repeats))

    @property
    def high_rps(self) -> float:
        """The highest end of the intervals of all seeds."""
        return max(one.high_rps for one in (self.capacity, *self.repeats))


def search_all(
    scenario: Scenario,
    policies: Sequence[str],
    *,
    goal: float,
    repeat: int,
    processes: int,
    quiet: bool = False,
) -> list[Found]:
    """Search each policy's capacity with each of `repeat` seeds, in the order of the policies.

    A bar counts the rates that were tried, or searches if there are several processes.
    """
    searches = [
        Search(scenario=scenario, policy=name, goal=goal, seed=seed)
        for name in policies
        for seed in range(repeat)
    ]
    with counting_bar(transient=True, quiet=quiet) as bar:
        found = list(_watched(bar, searches) if processes == 1 else _spread(bar, searches, processes))
    by_policy = (found[start : start + repeat] for start in range(0, len(found), repeat))
    return [replace(first, repeats=[one.capacity for one in rest]) for first, *rest in by_policy]


def result(scenario: Scenario, found: Sequence[Found], *, goal: float) -> dict[str, Any]:
    """Return what `--find capacity --json` prints."""
    return {
        "schema": SCHEMA,
        "trace": scenario.trace,
        "fleet": scenario.fleet,
        "slo": scenario.objectives,
        "attain": goal,
        "unservable": found[0].unservable,
        "cost_models": {name: price.expected_error for name, price in scenario.priced().items()},
        "prices": prices(scenario),
        "settings": scenario.settings,
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
        rates = (f"{got.capacity_rps:.3f}{beyond}", f"{one.low_rps:.3f}", f"{one.high_rps:.3f}")
        runs = sum(len(search.tried) for search in (got, *one.repeats))
        shown.add_row(one.policy, *rates, str(runs))
    return shown


def notes(found: Sequence[Found]) -> Iterator[str]:
    """Yield what the figures leave out."""
    if left_out := found[0].unservable:
        yield (
            f"{left_out:,} requests are longer than any replica allows and were left out; "
            "raise max_model_len in --fleet to take them"
        )


def _watched(bar: Progress, searches: Sequence[Search]) -> Iterator[Found]:
    for search in searches:
        name = f"{search.policy}, seed {search.seed}" if search.seed else search.policy
        count = bar.add_task(f"{name}: rates tried", total=None)
        yield _search(search, partial(bar.advance, count))
        bar.update(count, total=bar.tasks[count].completed)


def _spread(bar: Progress, searches: Sequence[Search], processes: int) -> Iterator[Found]:
    every = spread(_search, searches, processes=processes)
    return iter(bar.track(every, total=len(searches), description="searches"))


def _search(search: Search, tried: Callable[[], object] | None = None) -> Found:
    """Find the capacity; `tried` is called after each rate."""
    scenario, policy = search.scenario, search.policy
    fleet = scenario.servers()
    every = scenario.jobs(seed=search.seed)
    fitting = servable(every, fleet)
    if len(fitting) < 2 or fitting[0].t_s == fitting[-1].t_s:
        raise ValueError("the trace has no rate: fewer than two requests at different times fit this fleet")
    recorded_rps = (len(fitting) - 1) / (fitting[-1].t_s - fitting[0].t_s)
    kept = {job.request.id for job in fitting}

    def probe(rate_rps: float) -> Probe:
        jobs = scenario.jobs(seed=search.seed, speed=rate_rps / recorded_rps)
        jobs = [job for job in jobs if job.request.id in kept]
        with in_options():
            found = attempt(
                jobs,
                fleet,
                scenario.controller(policy),
                scenario.batching_policy(),
                slo=scenario.objectives,
                goal=search.goal,
                surroundings=scenario.surroundings,
            )
        if tried:
            tried()
        return found

    capacity = find_capacity(probe, recorded_rps, goal=search.goal)
    return Found(policy=policy, capacity=capacity, unservable=len(every) - len(fitting))


def _policy(one: Found) -> dict[str, Any]:
    got = one.capacity
    return {
        "name": one.policy,
        "capacity_rps": got.capacity_rps,
        "low_rps": one.low_rps,
        "high_rps": one.high_rps,
        "bounded": got.bounded,
        "probes": [
            {"rate_rps": tried.rate_rps, "attained": tried.probe.attained, "whole": bool(tried.probe.met)}
            for tried in got.tried
        ],
        "repeats": [
            {
                "seed": seed,
                "capacity_rps": again.capacity_rps,
                "low_rps": again.low_rps,
                "high_rps": again.high_rps,
            }
            for seed, again in enumerate(one.repeats, 1)
        ],
    }

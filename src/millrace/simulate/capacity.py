"""How much a fleet can take: the highest request rate at which enough requests meet their objectives.

A trace is sped up or slowed down as a whole, so its bursts, lengths and shared prefixes stay. The rate is
doubled or halved until one rate holds and one does not, then the gap between them is halved (geometrically)
until it is narrow. The interval comes from a block bootstrap of the probes: each probe's requests, in order
of arrival, are cut into contiguous blocks, the same blocks are redrawn for all rates, and each redrawing has
a rate of its own at which its attainment, made monotone and straight between probes, falls below the goal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from operator import attrgetter

from msgspec import Struct

from millrace.control import Controller
from millrace.core.batch import BatchingPolicy
from millrace.core.compare import blocks_of, mean_of, redrawn
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits
from millrace.core.request import Slo
from millrace.core.stats import percentile
from millrace.simulate.engine import ServerSpec
from millrace.simulate.job import Job
from millrace.simulate.run import simulate
from millrace.simulate.surroundings import Surroundings

FURTHEST = 10
"""How many times a rate is doubled or halved before the search gives up."""


class Probe(Struct, frozen=True, kw_only=True):
    """One run: `attained` of its requests met the objectives.

    `met` says it of each request in order of arrival; it is empty for a run that was stopped, whose
    attainment is then an upper bound.
    """

    attained: float
    met: list[bool] = []


class Tried(Struct, frozen=True, kw_only=True):
    """A rate and what came of it."""

    rate_rps: float
    probe: Probe


class Capacity(Struct, frozen=True, kw_only=True):
    """The highest rate that was found to hold, its 95 % interval, and all that was tried, by rate.

    0 if no rate holds, and then `high_rps` is the lowest that was tried. With `bounded` False every rate
    that was tried holds, and so may higher ones.
    """

    capacity_rps: float
    low_rps: float
    high_rps: float
    bounded: bool
    tried: list[Tried]


class HopelessError(Exception):
    """A run has missed its objectives so often that nothing to come can make up for it."""


def find_capacity(
    probe: Callable[[float], Probe], start_rps: float, *, goal: float = 0.95, tolerance: float = 0.02
) -> Capacity:
    """Search the highest rate at which `probe(rate)` attains `goal`, to within `tolerance` of itself.

    Attainment need not fall evenly: what is found holds, and a rate at most `tolerance` above it does not.
    Raises ValueError for a goal or rate out of range.
    """
    if not 0 < goal <= 1:
        raise ValueError(f"attain is {goal}; it must be above 0 and at most 1, like 0.95")
    if not start_rps > 0:
        raise ValueError(f"the rate to start from is {start_rps}; it must be above 0")
    tried: list[Tried] = []

    def holds(rate_rps: float) -> bool:
        tried.append(Tried(rate_rps=rate_rps, probe=probe(rate_rps)))
        return tried[-1].probe.attained >= goal

    low_rps, high_rps = _bracket(holds, start_rps)
    while low_rps and high_rps and high_rps > low_rps * (1 + tolerance):
        middle_rps = sqrt(low_rps * high_rps)
        if holds(middle_rps):
            low_rps = middle_rps
        else:
            high_rps = middle_rps
    tried.sort(key=attrgetter("rate_rps"))
    if not low_rps:
        return Capacity(capacity_rps=0.0, low_rps=0.0, high_rps=tried[0].rate_rps, bounded=True, tried=tried)
    crossings = _crossings(tried, goal)
    return Capacity(
        capacity_rps=low_rps,
        low_rps=min(low_rps, percentile(crossings, 2.5)),
        high_rps=max(low_rps, percentile(crossings, 97.5)),
        bounded=high_rps is not None,
        tried=tried,
    )


def servable(jobs: Sequence[Job], fleet: Sequence[ServerSpec]) -> list[Job]:
    """Leave out the requests that are longer than any engine of the fleet allows, at whatever rate."""
    limits = [server.spec.limits or Limits() for server in fleet]
    longest = max(min(one.context_tokens, one.kv_blocks * one.block_tokens + 1) for one in limits)
    return [job for job in jobs if job.prompt_tokens + job.output_tokens <= longest]


def attempt(
    jobs: Sequence[Job],
    fleet: Sequence[ServerSpec],
    controller: Controller,
    batching: BatchingPolicy,
    *,
    slo: Slo,
    goal: float,
    surroundings: Surroundings | None = None,
) -> Probe:
    """Run the jobs; stop once twice as many have missed their objectives as the goal allows."""
    hopeless = 2 * ceil((1 - goal) * len(jobs)) + 1
    missed = 0

    def watch(outcome: Outcome) -> None:
        nonlocal missed
        missed += not outcome.meets(slo)
        if missed >= hopeless:
            raise HopelessError

    try:
        found = simulate(
            jobs, fleet, controller, batching, slo=slo, surroundings=surroundings, progress=watch
        )
    except HopelessError:
        return Probe(attained=1 - missed / len(jobs))
    ended = sorted(found.outcomes, key=attrgetter("scheduled_s"))
    return Probe(attained=found.measured.slo_attainment, met=[outcome.meets(slo) for outcome in ended])


def _bracket(holds: Callable[[float], bool], rate_rps: float) -> tuple[float, float | None]:
    """Return a rate that holds and one that does not: 0 if none holds, None if all do."""
    if holds(rate_rps):
        for _ in range(FURTHEST):
            if not holds(2 * rate_rps):
                return rate_rps, 2 * rate_rps
            rate_rps *= 2
        return rate_rps, None
    for _ in range(FURTHEST):
        rate_rps /= 2
        if holds(rate_rps):
            return rate_rps, 2 * rate_rps
    return 0.0, rate_rps


def _crossings(tried: Sequence[Tried], goal: float) -> list[float]:
    """Return, for each redrawing of the requests, the rate at which its attainment falls below the goal."""
    blocks = [blocks_of(one.probe.met) for one in tried]
    count = max(map(len, blocks))
    return [
        _crossing(
            [
                (one.rate_rps, mean_of(cut, chosen) if cut else one.probe.attained)
                for one, cut in zip(tried, blocks, strict=True)
            ],
            goal,
        )
        for chosen in redrawn(count, "capacity")
    ]


def _crossing(points: Sequence[tuple[float, float]], goal: float) -> float:
    """Return where a line through the points, never rising, falls below the goal."""
    held_rps, held = points[0]
    if held < goal:
        return held_rps
    for rate_rps, attained in points[1:]:
        if attained < goal:
            return held_rps + (rate_rps - held_rps) * (held - goal) / (held - attained)
        held_rps, held = rate_rps, min(held, attained)
    return held_rps

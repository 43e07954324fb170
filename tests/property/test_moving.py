"""Whatever moves, and whatever dies meanwhile: leaps change nothing, nobody is lost, nothing is left."""

from __future__ import annotations

from collections import Counter
from math import pi
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec, Role
from millrace.core.request import Request
from millrace.policies import load, names
from millrace.simulate import Job, ServerSpec, Simulation, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link
from millrace.simulate.surroundings import Surroundings
from tests.property.restless import Restless
from tests.property.sameness import assert_same, assert_settled
from tests.property.test_faults import scripts
from tests.property.test_gaps import agree
from tests.property.test_world import Affine, limits, workloads

ROLES: tuple[Role, ...] = ("both", "both", "both", "prefill")


class Played(Struct):
    """What came of a run, and what its log says of moves."""

    found: Simulation
    asked: Counter[bool]
    moved: int


def fleet_of(limit: Limits, count: int, *, adapters: int | None = None) -> list[ServerSpec]:
    return [
        ServerSpec(
            id=f"r{n}",
            spec=ReplicaSpec(
                models=("m",), limits=replace(limit, adapters=adapters), role=role, adapter_load_s=0.0113
            ),
            cost=Affine(),
            cold_start_s=0.3,
            kv_bytes_per_token=1e4,
        )
        for n, role in enumerate(ROLES[:count])
    ]


def play(
    jobs: list[Job],
    fleet: list[ServerSpec],
    batching: str,
    way: Surroundings,
    *,
    leaping: bool,
    one_in: int = 6,
) -> Played:
    split = any(one.spec.role == "prefill" for one in fleet)
    controller = Controller(
        load("routing", "disaggregated(local_below_tokens=9)" if split else "two_choices"),
        load("queueing", "fcfs"),
        ControlSettings(max_hold_s=1.01),
        migration=Restless(one_in=one_in),
    )
    log: list[bytes] = []
    found = simulate(
        jobs,
        fleet,
        controller,
        load("batching", batching),
        surroundings=way,
        log=log.append,
        leaping=leaping,
        itl=True,
    )
    assert_settled(jobs, found.outcomes, controller, log)
    lengths = {job.request.id: (job.prompt_tokens, job.output_tokens) for job in jobs}
    done = [o for o in found.outcomes if o.status == "completed"]
    assert all((o.prompt_tokens, o.output_tokens) == lengths[o.id] for o in done)
    text = b"".join(log)
    running = text.count(b'"running":true')
    asked = Counter({True: running, False: text.count(b'"Move"') - running})
    return Played(found, asked, sum(outcome.moves for outcome in found.outcomes))


def compare(
    jobs: list[Job], fleet: list[ServerSpec], batching: str, way: Surroundings, *, one_in: int = 6
) -> Played:
    """Assert that leaping and stepping agree."""
    leapt, stepped = (
        play(jobs, fleet, batching, way, leaping=leaping, one_in=one_in) for leaping in (True, False)
    )
    agree(leapt.found.itl_s, stepped.found.itl_s)
    assert_same(leapt.found.outcomes, stepped.found.outcomes)
    assert [_moving(o) for o in _by_id(leapt)] == [_moving(o) for o in _by_id(stepped)]
    return leapt


def _by_id(played: Played) -> list[Outcome]:
    return sorted(played.found.outcomes, key=lambda outcome: outcome.id)


def _moving(outcome: Outcome) -> tuple[str, int, object]:
    return outcome.id, outcome.moves, pytest.approx(outcome.paused_s, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(
    jobs=workloads(),
    needs=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=25, max_size=25),
    limit=limits,
    count=st.sampled_from([2, 3, 4]),
    adapters=st.sampled_from([None, None, 2]),
    batching=st.sampled_from(names("batching")),
    way_s=st.sampled_from([0.0, 0.003, 0.2]),
    bytes_per_s=st.sampled_from([1e9, 7.3e6, 9.1e5]),
    faults=scripts(len(ROLES), 6),
    scrape_s=st.sampled_from([None, 0.3 + pi * 1e-5]),
    failover=st.booleans(),
)
def test_leaping_over_moves_changes_nothing(
    *,
    jobs: list[Job],
    needs: list[str | None],
    limit: Limits,
    count: int,
    adapters: int | None,
    batching: str,
    way_s: float,
    bytes_per_s: float,
    faults: tuple[Fault, ...],
    scrape_s: float | None,
    failover: bool,
) -> None:
    if adapters:
        jobs = [
            replace(job, request=replace(job.request, adapter=adapter))
            for job, adapter in zip(jobs, needs, strict=False)
        ]
    way = Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        scrape_s=scrape_s,
        faults=tuple(fault for fault in faults if fault.replica < f"r{count}"),
        link=Link(bytes_per_s=bytes_per_s, latency_s=0.00071),
        failover=failover,
    )
    compare(jobs, fleet_of(limit, count, adapters=adapters), batching, way)


def busy(seed: int) -> tuple[list[Job], Limits]:
    """Return requests of which several are always under way, and replicas that are too small for them."""
    dice = Random(seed)
    jobs, t_s = [], 0.0
    for n in range(40):
        t_s += 0.2 * dice.random()
        prompt, output = dice.randint(1, 90), dice.randint(1, 60)
        asked = Request(id=f"q{n}", model="m", prompt_tokens=prompt, max_tokens=output)
        blocks = tuple(range(100, 100 + min(prompt // 16, dice.randint(0, 4))))
        jobs.append(Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output, blocks=blocks))
    limit = Limits(
        step_tokens=dice.randint(16, 64),
        sequences=dice.randint(1, 6),
        kv_blocks=dice.choice((80, 120)),
        block_tokens=2,
        context_tokens=256,
    )
    return jobs, limit


@pytest.mark.parametrize("seed", range(12))
def test_a_busy_fleet_in_which_much_moves_and_dies_agrees_too(seed: int) -> None:
    jobs, limit = busy(seed)
    dice = Random(seed + 100)
    faults = [
        Fault(0.0917 * n + pi * 1e-5, dice.choice(("kill", "start", "start", "drain")), f"r{n % 3}")
        for n in dice.sample(range(90), 14)
    ]
    way_s = dice.choice((0.0, 0.003, 0.2))
    way = Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        link=Link(bytes_per_s=dice.choice((1e9, 7.3e6)), latency_s=0.00071),
        failover=seed % 2 == 0,
    )
    fleet = [replace(one, ahead=dice.random() < 0.4) for one in fleet_of(limit, 3 + seed % 2)]
    played = compare(jobs, fleet, dice.choice(names("batching")), way, one_in=8)
    assert played.asked.total() > 5


@pytest.mark.parametrize("way_s", [0.0, 0.003, 0.2])
def test_without_faults_everybody_completes_wherever_it_moves(way_s: float) -> None:
    jobs, limit = busy(3)
    way = Surroundings(
        to_engine_s=way_s, from_engine_s=way_s, link=Link(bytes_per_s=7.3e6, latency_s=0.00071)
    )
    jobs = [replace(job, t_s=job.t_s / 5) for job in jobs]
    played = compare(jobs, fleet_of(limit, 3), "split_fuse", way, one_in=30)
    assert {outcome.status for outcome in played.found.outcomes} == {"completed"}
    assert all(o.output_tokens == j.output_tokens for o, j in zip(_by_id(played), by_name(jobs), strict=True))
    assert min(played.asked[True], played.asked[False]) > 2
    assert played.asked[False] < played.moved <= played.asked.total()


def by_name(jobs: list[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: job.request.id)

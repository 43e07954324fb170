"""Whoever computes prompts for others, and whatever dies meanwhile: leaps change nothing, nobody is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from math import pi
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.replica import Limits, ReplicaSpec, Role
from millrace.core.request import Request
from millrace.policies import load, names
from millrace.simulate import Job, ServerSpec, Simulation, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link, Transfer
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same, assert_settled
from tests.property.test_faults import scripts
from tests.property.test_gaps import agree
from tests.property.test_world import Affine, limits, workloads

ROLES: tuple[Role, ...] = ("prefill", "decode", "prefill", "decode", "both")
BYTES_EACH = 1e4


class Carried(Struct, frozen=True):
    """A transfer that ended."""

    source: str
    target: str
    bytes: float
    began_s: float
    ended_s: float


def fleet_of(limit: Limits, count: int, *, adapters: int | None) -> list[ServerSpec]:
    return [
        ServerSpec(
            id=f"r{n}",
            spec=ReplicaSpec(
                models=("m",), limits=replace(limit, adapters=adapters), role=role, adapter_load_s=0.0113
            ),
            cost=Affine(),
            cold_start_s=0.3,
            kv_bytes_per_token=BYTES_EACH,
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
    routing: str = "disaggregated(local_below_tokens=9)",
) -> tuple[Simulation, list[Carried]]:
    controller = Controller(
        load("routing", routing),
        load("queueing", "fcfs"),
        ControlSettings(max_hold_s=1.01),
    )
    log: list[bytes] = []
    carried: list[Carried] = []

    def note(one: Transfer, now_s: float) -> None:
        assert one.began_s is not None
        carried.append(Carried(one.source, one.target, one.bytes, one.began_s, now_s))

    found = simulate(
        jobs,
        fleet,
        controller,
        load("batching", batching),
        surroundings=way,
        log=log.append,
        transfers=note,
        leaping=leaping,
        itl=True,
    )
    assert_settled(jobs, found.outcomes, controller, log)
    return found, carried


def check_links(carried: Iterable[Carried], link: Link) -> None:
    """Each transfer takes its time, and no two share a link."""
    every = list(carried)
    for one in every:
        assert one.ended_s - one.began_s == pytest.approx(link.latency_s + one.bytes / link.bytes_per_s)
    for one, other in combinations(every, 2):
        if one.source == other.source or one.target == other.target:
            assert one.ended_s <= other.began_s + 1e-12 or other.ended_s <= one.began_s + 1e-12


def compare(
    jobs: list[Job], fleet: list[ServerSpec], batching: str, way: Surroundings, **how: Any
) -> Counter[str]:
    """Assert that leaping and stepping agree; return how many requests ended in which way."""
    (leapt, carried), (stepped, oracles) = (
        play(jobs, fleet, batching, way, leaping=leaping, **how) for leaping in (True, False)
    )
    check_links(carried, way.link)
    assert [(c.source, c.target, c.bytes) for c in carried] == [
        (c.source, c.target, c.bytes) for c in oracles
    ]
    agree(leapt.itl_s, stepped.itl_s)
    assert_same(leapt.outcomes, stepped.outcomes)
    return Counter(outcome.status for outcome in leapt.outcomes)


@settings(max_examples=60, deadline=None)
@given(
    jobs=workloads(),
    needs=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=25, max_size=25),
    limit=limits,
    count=st.sampled_from([2, 4, 5]),
    adapters=st.sampled_from([None, None, 2]),
    batching=st.sampled_from(names("batching")),
    way_s=st.sampled_from([0.0, 0.003, 0.2]),
    bytes_per_s=st.sampled_from([1e9, 7.3e6, 9.1e5]),
    faults=scripts(len(ROLES), 6),
    scrape_s=st.sampled_from([None, 0.3 + pi * 1e-5]),
)
def test_leaping_over_handovers_changes_nothing(
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
    )
    fleet = fleet_of(limit, count, adapters=adapters)
    compare(jobs, fleet, batching, way)


@settings(max_examples=60, deadline=None)
@given(jobs=workloads(), limit=limits, batching=st.sampled_from(names("batching")))
def test_every_byte_of_a_prompt_is_carried_once_or_was_there(
    jobs: list[Job], limit: Limits, batching: str
) -> None:
    plain = [replace(job, blocks=(), request=replace(job.request, blocks=())) for job in jobs]
    fleet = fleet_of(limit, 2, adapters=None)
    found, carried = play(plain, fleet, batching, Surroundings(), leaping=True)
    sent = [o.prompt_tokens for o in found.outcomes if o.status == "completed" and o.prefilled_on]
    assert sorted(one.bytes for one in carried) == sorted(tokens * BYTES_EACH for tokens in sent)
    shared, _ = play(jobs, fleet, batching, Surroundings(), leaping=True)
    assert [o.status for o in shared.outcomes].count("completed") == len(
        [o for o in found.outcomes if o.status == "completed"]
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_busy_fleet_in_which_much_dies_agrees_too(seed: int) -> None:
    dice = Random(seed)
    jobs, t_s = [], 0.0
    for n in range(40):
        t_s += 0.3 * dice.random()
        prompt, output = dice.randint(1, 90), dice.randint(1, 40)
        asked = Request(id=f"q{n}", model="m", prompt_tokens=prompt, max_tokens=output)
        blocks = tuple(range(100, 100 + min(prompt // 16, dice.randint(0, 4))))
        jobs.append(Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output, blocks=blocks))
    limit = Limits(
        step_tokens=dice.randint(16, 64),
        sequences=dice.randint(1, 6),
        kv_blocks=dice.randint(33, 50),
        block_tokens=4,
        context_tokens=256,
    )
    faults = [
        Fault(0.0917 * n + pi * 1e-5, dice.choice(("kill", "start", "start", "drain")), f"r{n % len(ROLES)}")
        for n in dice.sample(range(90), 14)
    ]
    way_s = dice.choice((0.0, 0.003, 0.2))
    way = Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        link=Link(bytes_per_s=dice.choice((1e9, 7.3e6)), latency_s=0.00071),
    )
    fleet = [replace(one, ahead=dice.random() < 0.4) for one in fleet_of(limit, len(ROLES), adapters=None)]
    ended = compare(jobs, fleet, dice.choice(names("batching")), way)
    assert ended["completed"]
    both = [replace(one, spec=replace(one.spec, role="both")) for one in fleet]
    ended = compare(jobs, both, "split_fuse", way, routing="xllm_slo_aware(slo_tpot_s=0.01)")
    assert ended["completed"]

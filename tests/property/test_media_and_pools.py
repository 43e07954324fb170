"""Whoever encodes, whatever is shared in a pool, and whatever dies meanwhile: leaps change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from random import Random

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.cost.encode import Encoder
from millrace.core.memory_tiers import Tier
from millrace.core.replica import Limits, Role
from millrace.core.request import Media, Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same, assert_settled
from tests.property.test_handover import fleet_of

ENCODER = Encoder(tokens_per_s=613.0, start_s=0.0113, bytes_per_token=2e4)
POOL = Tier(name="pool", capacity_bytes=1.2e7, bytes_per_s=7.3e7, latency_s=0.0031, source="made up")


def jobs_from(dice: Random) -> list[Job]:
    """Requests of which some share prefixes and images."""
    jobs, t_s = [], 0.0
    for n in range(40):
        t_s += 0.3 * dice.random()
        prompt, output = dice.randint(20, 90), dice.randint(1, 40)
        key = dice.choice((0, 0, 1, 2, 3))
        media = (Media("image", key, 12),) if key else ()
        blocks = tuple(range(100 * key, 100 * key + min(prompt // 4, dice.randint(0, 20))))
        asked = Request(
            id=f"q{n}",
            model="m",
            prompt_tokens=prompt,
            max_tokens=output,
            media=media,
            blocks=blocks,
            block_tokens=4,
        )
        jobs.append(
            Job(
                t_s=t_s,
                request=asked,
                prompt_tokens=prompt,
                output_tokens=output,
                blocks=blocks,
                block_tokens=4,
            )
        )
    return jobs


def servers_from(dice: Random, roles: Sequence[Role], encoder: Encoder | None) -> list[ServerSpec]:
    limit = Limits(
        step_tokens=dice.randint(16, 64),
        sequences=dice.randint(1, 6),
        kv_blocks=dice.randint(33, 60),
        block_tokens=4,
        context_tokens=256,
    )
    plain = fleet_of(limit, len(roles), adapters=None)
    return [
        replace(one, spec=replace(one.spec, role=role), encoder=encoder, ahead=dice.random() < 0.3)
        for one, role in zip(plain, roles, strict=True)
    ]


def way_from(dice: Random, replicas: int, pool: Tier | None) -> Surroundings:
    faults = [
        Fault(0.0917 * n + pi * 1e-5, dice.choice(("kill", "start", "start", "drain")), f"r{n % replicas}")
        for n in dice.sample(range(90), 12)
    ]
    way_s = dice.choice((0.0, 0.003, 0.2))
    return Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        link=Link(bytes_per_s=7.3e6, latency_s=0.00071),
        pool=pool,
    )


def play(
    jobs: list[Job], fleet: list[ServerSpec], routing: str, way: Surroundings, leaping: bool
) -> Simulation:
    controller = Controller(
        load("routing", routing), load("queueing", "kvshare"), ControlSettings(max_hold_s=1.01, max_waiting=3)
    )
    log: list[bytes] = []
    found = simulate(
        jobs,
        fleet,
        controller,
        load("batching", "split_fuse"),
        surroundings=way,
        log=log.append,
        leaping=leaping,
        itl=True,
    )
    assert_settled(jobs, found.outcomes, controller, log)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_leaping_over_images_changes_nothing_and_nobody_is_lost(seed: int) -> None:
    dice = Random(seed)
    roles: Sequence[Role] = dice.choice(
        (("both", "both"), ("encode", "both", "both"), ("encode", "encode", "both"))
    )
    jobs, fleet = jobs_from(dice), servers_from(dice, roles, ENCODER)
    way = way_from(dice, len(roles), None)
    leapt, stepped = (play(jobs, fleet, "elasticmm", way, leaping) for leaping in (True, False))
    assert_same(leapt.outcomes, stepped.outcomes)


@pytest.mark.parametrize("seed", range(8))
def test_leaping_over_loads_from_a_pool_changes_nothing_and_nobody_is_lost(seed: int) -> None:
    dice = Random(seed)
    roles: Sequence[Role] = dice.choice((("both", "both", "both"), ("prefill", "decode", "both")))
    jobs, fleet = jobs_from(dice), servers_from(dice, roles, None)
    way = way_from(dice, len(roles), POOL)
    routing = dice.choice(("least_request", "xllm_slo_aware", "disaggregated(local_below_tokens=9)"))
    leapt, stepped = (play(jobs, fleet, routing, way, leaping) for leaping in (True, False))
    assert_same(leapt.outcomes, stepped.outcomes)

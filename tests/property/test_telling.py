"""Simulated engines that tell of their caches: leaps change nothing, and the index knows what is cached."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from millrace.control import Controller, ControlSettings
from millrace.core.replica import Role
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, Surroundings, simulate
from millrace.simulate.telling import in_blocks
from tests.property.sameness import assert_same, assert_settled
from tests.property.test_media_and_pools import ENCODER, POOL, jobs_from, servers_from, way_from

EVENTS = ControlSettings(max_hold_s=1.01, max_waiting=3, prefix_knowledge="events", prefix_ttl_s=0.5)


def play(
    jobs: Sequence[Job],
    fleet: list[ServerSpec],
    policies: tuple[str, str | None],
    way: Surroundings,
    leaping: bool,
) -> tuple[Simulation, Controller]:
    routing, migration = policies
    controller = Controller(
        load("routing", routing),
        load("queueing", "kvshare"),
        EVENTS,
        migration=None if migration is None else load("migration", migration),
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
    )
    assert_settled(jobs, found.outcomes, controller, log)
    return found, controller


@pytest.mark.parametrize("seed", range(12))
def test_leaping_while_engines_tell_of_their_caches_changes_nothing(seed: int) -> None:
    dice = Random(seed)
    roles: Sequence[Role] = dice.choice(
        (("both", "both", "both"), ("prefill", "decode", "both"), ("encode", "both", "both"))
    )
    sees = "encode" in roles
    jobs, fleet = jobs_from(dice), servers_from(dice, roles, ENCODER if sees else None)
    moving = None if sees else dice.choice(("dualmap", None))
    way = way_from(dice, len(roles), None if moving or sees else dice.choice((POOL, None)))
    routing = dice.choice(("least_work", "millrace", "disaggregated(local_below_tokens=9)"))
    routing = "elasticmm" if sees else routing
    (leapt, one), (stepped, other) = (
        play(jobs, fleet, (routing, moving), way, leaping) for leaping in (True, False)
    )
    assert_same(leapt.outcomes, stepped.outcomes)
    for name, view in one.state.replicas.items():
        prompts = [in_blocks(job, 4).request for job in jobs]
        known = [view.prefix.matched_tokens(prompt) for prompt in prompts]
        assert known == [other.state.replicas[name].prefix.matched_tokens(prompt) for prompt in prompts]

"""A pool for caches, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.event import Arrived
from millrace.core.memory_tiers import Tier
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits
from millrace.policies import load
from millrace.simulate import ServerSpec, Surroundings, parse_faults, simulate
from millrace.simulate.cache_pool import Shelf
from tests.unit.simulate.test_handover import Leaving, fleet_of, job

POOL = Tier(name="pool", capacity_bytes=1e6, bytes_per_s=1600.0, latency_s=0.5, source="made up")


def play(
    jobs: list[Any],
    fleet: list[ServerSpec],
    *,
    pool: Tier | None = POOL,
    script: str = "",
    kind: type[Controller] = Controller,
    routing: str = "round_robin",
) -> dict[str, Outcome]:
    controller = kind(load("routing", routing), load("queueing", "fcfs"), ControlSettings(max_hold_s=5.0))
    found = simulate(
        jobs,
        fleet,
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(pool=pool, faults=parse_faults(script)),
    )
    for view in controller.state.replicas.values():
        assert (view.waiting, view.running, view.queued_tokens, view.coming_tokens) == (0, 0, 0, 0)
    return {outcome.id: outcome for outcome in found.outcomes}


JOBS = [job("a", blocks=6), job("b", 10.0, blocks=6)]


def test_a_prompt_that_one_replica_computed_is_loaded_by_another_one() -> None:
    found = play(JOBS, fleet_of("both", "both"))
    assert {one.replica for one in found.values()} == {"r0", "r1"}
    assert (found["a"].cached_tokens, found["b"].cached_tokens) == (0, 96)
    # 96 tokens of 10 bytes take 0.6 s after 0.5 s; then the rest of the prompt is computed in one step.
    assert found["b"].first_token_s == pytest.approx(10.0 + 0.5 + 0.6 + 1.0)


def test_without_a_pool_it_is_computed_again() -> None:
    found = play(JOBS, fleet_of("both", "both"), pool=None)
    assert (found["b"].cached_tokens, found["b"].first_token_s) == (0, 11.0)


def test_what_the_replica_holds_itself_is_not_loaded() -> None:
    found = play(JOBS, fleet_of("both"))
    assert (found["b"].cached_tokens, found["b"].first_token_s) == (96, 11.0)


def test_what_is_computed_sooner_is_not_loaded() -> None:
    def quick(tokens_per_s: float) -> list[ServerSpec]:
        fleet = fleet_of("both", "both")
        return [replace(s, spec=replace(s.spec, prefill_tokens_per_s=tokens_per_s)) for s in fleet]

    assert play(JOBS, quick(100.0))["b"].cached_tokens == 0  # 0.96 s against 1.1
    assert play(JOBS, quick(50.0))["b"].cached_tokens == 96


def test_loads_of_one_replica_come_one_after_the_other() -> None:
    jobs = [job("a", blocks=6), *(job(name, 20.0, blocks=6) for name in "bcd")]
    found = play(jobs, fleet_of("both", "both"))
    # Two are loaded until 21.1 and 22.2; the second waits for the end of a step that began before.
    assert sorted(one.first_token_s or 0.0 for one in found.values()) == pytest.approx(
        [1.0, 21.0, 22.1, 24.1]
    )


def test_a_replica_without_a_prefix_cache_loads_nothing() -> None:
    limits = {name: Limits(prefix_caching=False) for name in ("r0", "r1")}
    assert play(JOBS, fleet_of("both", "both", limits=limits))["b"].cached_tokens == 0


def test_the_pool_forgets_what_was_used_longest_ago_the_tail_first() -> None:
    shelf = Shelf(4)
    shelf.use([1, 2, 3])
    shelf.use([7, 8])
    assert [shelf.matched(blocks) for blocks in ([1, 2, 3], [7, 8], [9])] == [2, 2, 0]
    small = replace(POOL, capacity_bytes=3 * 16 * 10.0)
    assert play(JOBS, fleet_of("both", "both"), pool=small)["b"].cached_tokens == 48


@pytest.mark.parametrize(
    "script", ["kill r1 at 10.3s", "kill r1 at 10.3s; start r1 at 10.5s", "drain r1 at 10.3s"]
)
def test_whoever_dies_or_drains_during_a_load_loses_nobody(script: str) -> None:
    found = play(JOBS, fleet_of("both", "both"), script=script)
    assert found["b"].status == "completed"


def test_a_client_that_leaves_during_a_load_leaves_nothing_behind() -> None:
    class Gone(Leaving):
        upon = Arrived

    jobs = [job("a", blocks=6), job("b", 10.0, blocks=6)]
    assert {one.status for one in play(jobs, fleet_of("both", "both"), kind=Gone).values()} == {"cancelled"}


def test_prompts_computed_for_others_are_looked_up_too() -> None:
    fleet = fleet_of("prefill", "prefill", "decode")
    jobs = [job(f"q{n}", 10.0 * n, blocks=6) for n in range(6)]
    found = play(jobs, fleet, routing="disaggregated(local_below_tokens=0)")
    assert {one.prefilled_on for one in found.values()} == {"r0", "r1"}
    assert [found[f"q{n}"].cached_tokens for n in range(6)] == [0, *[96] * 5]


def test_a_pool_needs_sizes_and_single_ranks() -> None:
    with pytest.raises(ValueError, match="shares a cache pool: say its kv_bytes_per_token"):
        play(JOBS, fleet_of("both", kv_bytes_per_token=None))
    with pytest.raises(ValueError, match="r0 cannot share a cache pool: engines of one rank do"):
        play(JOBS, fleet_of("both", ranks=2))
    with pytest.raises(ValueError, match="with a cache pool no request moves yet"):
        simulate(
            JOBS,
            fleet_of("both"),
            Controller(
                load("routing", "random"), load("queueing", "fcfs"), migration=load("migration", "llumnix")
            ),
            load("batching", "split_fuse"),
            surroundings=Surroundings(pool=POOL),
        )

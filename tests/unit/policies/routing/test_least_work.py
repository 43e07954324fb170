"""Least work: the first token is predicted in seconds, from work, speed and what is cached."""

from __future__ import annotations

import pytest

from millrace.core.fleet import Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.least_work import Policy, soonest
from millrace.testing import fakes

SHARED = fakes.request("earlier", prompt_tokens=1600, blocks=tuple(range(100)))


def _first_token_s(request: Request, replica: ReplicaView) -> float:
    seconds, best = soonest(request, [replica], 100.0)
    assert best == [replica]
    return seconds


def _chosen(*replicas: ReplicaView, id: str = "q", prompt_tokens: int = 1000) -> str:
    request = fakes.request(id, prompt_tokens=prompt_tokens, blocks=SHARED.blocks)
    decision = Policy().route(request, fakes.fleet(*replicas))
    assert isinstance(decision, Route)
    return decision.replica


def test_the_replica_with_less_queued_work_is_chosen_not_the_one_with_fewer_requests() -> None:
    few_long = fakes.replica("few", waiting=1, queued_tokens=9000)
    many_short = fakes.replica("many", waiting=5, queued_tokens=500)
    assert _chosen(few_long, many_short) == "many"


def test_a_warm_replica_is_preferred_to_an_idle_one_while_it_pays() -> None:
    idle = fakes.replica("idle")
    warm = fakes.replica("warm", sent=(SHARED,), waiting=1, queued_tokens=900)
    assert _chosen(idle, warm) == "warm"
    warm.queued_tokens = 1100
    assert _chosen(idle, warm) == "idle"


def test_a_faster_replica_may_have_more_queued() -> None:
    slow = fakes.replica("slow", prefill_tokens_per_s=100.0)
    fast = fakes.replica("fast", prefill_tokens_per_s=1000.0, queued_tokens=5000)
    assert _chosen(slow, fast) == "fast"


def test_an_unknown_prefill_speed_is_taken_to_be_the_slowest_known() -> None:
    slow = fakes.replica("slow", prefill_tokens_per_s=100.0)
    fast = fakes.replica("fast", prefill_tokens_per_s=1000.0, queued_tokens=1000)
    unknown = fakes.replica("unknown")
    assert _chosen(slow, fast, unknown) == "fast"
    fast.queued_tokens = 10_000
    unknown.queued_tokens = 10
    assert _chosen(slow, fast, unknown) == "slow"


def test_an_unknown_decode_step_is_taken_to_be_the_longest_known() -> None:
    known = fakes.replica("known", running=1, decode_step_s=0.1, prefill_tokens_per_s=1000.0)
    unknown = fakes.replica("unknown", running=1, prefill_tokens_per_s=1000.0, queued_tokens=1)
    assert _chosen(known, unknown) == "known"


def test_speeds_that_nobody_knows_are_equal() -> None:
    assert _chosen(fakes.replica("a", queued_tokens=5), fakes.replica("b", running=1)) == "b"


def test_equal_predictions_go_to_the_replica_with_fewer_requests() -> None:
    assert _chosen(fakes.replica("a", running=2), fakes.replica("b", running=1)) == "b"


def test_ties_are_drawn_by_request() -> None:
    replicas = [fakes.replica(name) for name in "abc"]
    assert {_chosen(*replicas, id=f"q{n}") for n in range(30)} == {"a", "b", "c"}


def test_the_prediction_is_the_work_over_the_speed() -> None:
    replica = fakes.replica("r", queued_tokens=300, prefill_tokens_per_s=200.0)
    assert _first_token_s(fakes.request(prompt_tokens=100), replica) == 2.0


def test_running_requests_add_a_decode_iteration_to_every_step() -> None:
    replica = fakes.replica(
        "r", running=1, prefill_tokens_per_s=200.0, decode_step_s=0.25, limits=Limits(step_tokens=100)
    )
    assert _first_token_s(fakes.request(prompt_tokens=101), replica) == 101 / 200 + 2 * 0.25


def test_an_engine_of_unknown_limits_is_taken_to_have_the_usual_ones() -> None:
    replica = fakes.replica("r", running=1, decode_step_s=0.5)
    steps = 3  # 1100 tokens in steps of 512
    assert _first_token_s(fakes.request(prompt_tokens=1100), replica) == 11.0 + steps * 0.5


def test_even_a_prompt_that_is_cached_whole_has_one_token_to_compute() -> None:
    replica = fakes.replica("r", sent=(SHARED,), prefill_tokens_per_s=1.0)
    assert _first_token_s(SHARED, replica) == 1.0


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize("speed", ["0", "-5", "1e999"])
def test_the_assumed_speed_must_be_positive(speed: str) -> None:
    with pytest.raises(ValueError, match=r"assumed_tokens_per_s is .*; it must be positive"):
        load("routing", f"least_work(assumed_tokens_per_s={speed})")


def test_an_adapter_that_is_not_there_has_to_be_loaded() -> None:
    there = fakes.replica("r", prefill_tokens_per_s=100.0, decode_step_s=0.1, adapters=("a", "b"))
    lacking = fakes.replica("r", prefill_tokens_per_s=100.0, decode_step_s=0.1, adapter_load_s=0.25)
    assert _first_token_s(fakes.request(adapter="a"), there) == 1.0
    assert _first_token_s(fakes.request(adapter="a"), lacking) == 1.25
    assert _first_token_s(fakes.request(), lacking) == 1.0

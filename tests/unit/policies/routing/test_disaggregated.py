"""Long prompts are computed apart, short ones where they are answered, on the replica with the most room."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control.flight import Flight
from millrace.core.fleet import Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request, Slo
from millrace.policies.routing.disaggregated import Policy
from millrace.testing import fakes

TPOTS = (("tight", 0.03), ("lax", 0.05), ("none", None))
POLICY = Policy()
SMALL = Limits(kv_blocks=100, block_tokens=16)


def prefiller(id: str, **fields: Any) -> ReplicaView:
    return fakes.replica(id, role="prefill", **fields)


def decoder(id: str, **fields: Any) -> ReplicaView:
    return fakes.replica(id, role="decode", **fields)


def flight_of(request: Request, replica: str, *, started: bool = True) -> Flight:
    return Flight(request, 0, "m", 3, replica=replica, started=started)


def chosen(*replicas: ReplicaView, id: str = "q", **fields: Any) -> object:
    request = fakes.request(id, **{"prompt_tokens": 1000, **fields})
    return Policy().route(request, fakes.fleet(*replicas))


def test_a_long_prompt_is_computed_where_that_is_done_soonest() -> None:
    slow = prefiller("slow", prefill_tokens_per_s=100.0)
    busy = prefiller("busy", prefill_tokens_per_s=1000.0, queued_tokens=5000)
    quick = prefiller("quick", prefill_tokens_per_s=1000.0, queued_tokens=500)
    assert chosen(slow, busy, quick, decoder("d")) == Route("d", prefill_on="quick")


def test_a_short_prompt_and_one_that_is_there_are_computed_where_they_are_answered() -> None:
    assert chosen(prefiller("p"), decoder("d"), prompt_tokens=255) == Route("d")
    assert chosen(prefiller("p"), decoder("d"), prompt_tokens=256) == Route("d", prefill_on="p")
    shared = fakes.request("before", prompt_tokens=1000, blocks=tuple(range(60)))
    there = decoder("d", sent=(shared,))
    assert chosen(prefiller("p"), there, blocks=tuple(range(60))) == Route("d")


def test_under_pressure_shorter_prompts_are_sent_away_too() -> None:
    quick = {"prefill_tokens_per_s": 10_000.0, "decode_step_s": 0.02}
    tight, lax, none = (fakes.request(name, slo=Slo(tpot_s=s)) for name, s in TPOTS)
    apart, here = Route("d", prefill_on="p"), Route("d")

    def asked(tokens: int, *running: Request, policy: Policy = POLICY, **fields: Any) -> object:
        flights = {one.id: flight_of(one, "d") for one in running}
        replicas = (
            prefiller("p"),
            decoder("d", **{**quick, **fields}),
            decoder("e", context_tokens=9, **quick),
        )
        view = fakes.fleet(*replicas, flights=flights)
        return policy.route(fakes.request("q", prompt_tokens=tokens), view)

    assert asked(200, tight, none) == apart  # 20 ms, and as much more for the prompt
    assert asked(90, tight) == asked(200, lax) == asked(200, none) == asked(200) == here
    assert asked(15, tight, policy=Policy(slo_tpot_s=0.001)) == here
    assert asked(200, none, policy=Policy(slo_tpot_s=0.03)) == apart
    assert asked(20, tight, decode_step_s=None, prefill_tokens_per_s=None) == here
    assert asked(200, tight, decode_step_s=None, prefill_tokens_per_s=None) == apart
    elsewhere = {"q1": flight_of(tight, "e"), "q2": flight_of(tight, "d", started=False)}
    view = fakes.fleet(
        prefiller("p"), decoder("d", **quick), decoder("e", context_tokens=9), flights=elsewhere
    )
    assert Policy().route(fakes.request(prompt_tokens=200), view) == here


def test_whose_steps_nobody_knows_misses_any_objective() -> None:
    tight = fakes.request("tight", slo=Slo(tpot_s=9.0))
    view = fakes.fleet(prefiller("p"), decoder("d"), flights={"tight": flight_of(tight, "d")})
    assert Policy().route(fakes.request(), view) == Route("d", prefill_on="p")


def test_the_answer_comes_from_where_the_cache_has_the_most_room() -> None:
    full = decoder("full", context_tokens=900, limits=SMALL)
    awaited = decoder("awaited", coming_tokens=800, limits=SMALL)
    free = decoder("free", queued_tokens=700, limits=SMALL)
    assert chosen(prefiller("p"), full, awaited, free) == Route("free", prefill_on="p")
    large = decoder("large", context_tokens=2000)
    assert chosen(prefiller("p"), free, large) == Route("large", prefill_on="p")


def test_of_equals_the_ones_with_the_fewest_requests_take_turns_by_draw() -> None:
    even = [prefiller("p"), decoder("c", running=1), decoder("d"), decoder("e")]
    drawn = {chosen(*even, id=f"q{n}") for n in range(40)}
    assert drawn == {Route("d", prefill_on="p"), Route("e", prefill_on="p")}


def test_a_fleet_without_roles_computes_prompts_where_it_answers_them() -> None:
    busy = fakes.replica("busy", queued_tokens=900, prefill_tokens_per_s=500.0)
    assert chosen(busy, fakes.replica("unknown")) == Route("unknown")
    assert chosen(fakes.replica("a", queued_tokens=1), fakes.replica("b")) == Route("b")


def test_nobody_to_answer_is_reason_to_wait() -> None:
    assert chosen(prefiller("p")) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="local_below_tokens is -1"):
        Policy(local_below_tokens=-1)
    with pytest.raises(ValueError, match="pressed_from_tokens is -1"):
        Policy(pressed_from_tokens=-1)
    with pytest.raises(ValueError, match="slo_tpot_s is 0"):
        Policy(slo_tpot_s=0.0)
    with pytest.raises(ValueError, match="assumed_tokens_per_s is 0"):
        Policy(assumed_tokens_per_s=0)

"""xLLM's roles: who computes prompts, who decodes, and when they change over."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.fleet import Decision, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Slo
from millrace.policies.routing.xllm_slo_aware import Policy, pools_of
from millrace.testing import fakes

SPEEDS = {"prefill_tokens_per_s": 1000.0, "decode_step_s": 0.04, "context_s": 1e-6}
FULL = 32 * 1024 + 40_000  # cached tokens beside which a step takes 80 ms


def worker(id: str, **fields: Any) -> ReplicaView:
    return fakes.replica(id, **{**SPEEDS, **fields})


def decoding(id: str, **fields: Any) -> ReplicaView:
    return worker(id, **{"running": 1, "context_tokens": 100, **fields})


def chosen(*replicas: ReplicaView, id: str = "q", **fields: Any) -> Decision:
    return Policy().route(fakes.request(id, **fields), fakes.fleet(*replicas))


def names(*replicas: ReplicaView, apart: tuple[ReplicaView, ...] = ()) -> tuple[list[str], list[str]]:
    pools = pools_of(replicas, apart)
    return [one.id for one in pools.prefilling], [one.id for one in pools.decoding]


def test_who_answers_decodes_and_all_others_compute_prompts() -> None:
    coming = worker("b", coming_tokens=10)
    handed = worker("c", waiting=1)
    queueing = worker("d", waiting=1, queued_tokens=10)
    assert names(decoding("a"), coming, handed, queueing) == (["d"], ["a", "b", "c"])


def test_at_least_one_of_each_is_kept() -> None:
    assert names(worker("a"), worker("b"), worker("c")) == (["b", "c"], ["a"])
    assert names(decoding("a", running=3), decoding("b")) == (["b"], ["a"])
    assert names(worker("a")) == (["a"], ["a"])
    assert names(decoding("a"), apart=(worker("p", role="prefill"),)) == (["p"], ["a"])


def test_fixed_roles_stay() -> None:
    assert names(worker("a", role="decode"), worker("b", role="decode")) == (["a", "b"], ["a", "b"])
    assert names(worker("a", role="decode"), worker("b")) == (["b"], ["a"])


def test_the_prompt_is_computed_where_it_is_done_first_and_answered_where_the_objective_is_kept() -> None:
    busy = worker("busy", waiting=1, queued_tokens=500)
    full = decoding("a", context_tokens=FULL)
    assert chosen(full, decoding("b"), decoding("c"), busy, worker("idle")) == Route("b", prefill_on="idle")


def test_if_nobody_keeps_the_objective_a_replica_that_prefilling_can_spare_answers() -> None:
    full = decoding("a", context_tokens=FULL)
    assert chosen(full, worker("b"), worker("c", waiting=1, queued_tokens=9)) == Route("b")
    few = [decoding(name, context_tokens=FULL) for name in "ab"]
    late = [worker(name, waiting=1, queued_tokens=900) for name in "pq"]
    assert chosen(*few, *late).replica in ("a", "b")  # type: ignore[union-attr]
    assert chosen(few[0], *late).replica in ("p", "q")  # type: ignore[union-attr]


def test_the_last_one_that_computes_prompts_goes_on_doing_so() -> None:
    full, fuller = decoding("a", context_tokens=FULL), decoding("b", context_tokens=FULL + 1)
    assert chosen(full, fuller, worker("p")) == Route("a", prefill_on="p")
    apart = worker("p", role="prefill"), worker("q", role="prefill")
    assert chosen(full, *apart).replica == "a"  # type: ignore[union-attr]


def test_where_prompts_wait_a_decoding_replica_with_slack_computes_one() -> None:
    queue = worker("p", waiting=1, queued_tokens=2000)
    first, best = decoding("a", context_tokens=9000), decoding("b")
    assert chosen(first, best, queue) == Route("a", prefill_on="b")
    assert chosen(first, best, queue, slo=Slo(ttft_s=3.0)) == Route("a", prefill_on="p")
    busy = decoding("b", waiting=1, queued_tokens=3000)
    assert chosen(first, busy, queue) == Route("a", prefill_on="p")
    fixed = decoding("b", role="decode")
    assert chosen(first, fixed, queue) == Route("a", prefill_on="p")


def test_a_fleet_of_one_does_everything() -> None:
    assert chosen(worker("a")) == Route("a")
    assert chosen(decoding("a", context_tokens=FULL)) == Route("a")
    assert chosen() == Hold("no ready replica")


def test_unknown_steps_are_as_long_as_any_and_unknown_speeds_as_slow() -> None:
    unknown = worker("a", running=1, decode_step_s=None, prefill_tokens_per_s=None)
    slow = decoding("b", decode_step_s=0.3)
    quick, late = worker("p", prefill_tokens_per_s=2000.0), worker("q", prefill_tokens_per_s=None)
    assert chosen(unknown, slow, quick, late, slo=Slo(tpot_s=0.2)).replica == "p"  # type: ignore[union-attr]
    assert chosen(unknown, decoding("b"), worker("p")) == Route("a", prefill_on="p")


def test_who_has_no_seat_left_keeps_no_objective() -> None:
    full = decoding("a", running=2, limits=Limits(sequences=2))
    assert chosen(full, decoding("b"), worker("p")) == Route("b", prefill_on="p")


def test_settings_out_of_range_are_refused() -> None:
    for name in ("slo_ttft_s", "slo_tpot_s", "assumed_tokens_per_s"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            Policy(**{name: 0})

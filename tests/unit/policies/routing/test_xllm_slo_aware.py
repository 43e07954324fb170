"""xLLM's roles: who computes prompts, who decodes, and when they change over."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control.flight import Flight
from millrace.core.fleet import Decision, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Slo
from millrace.policies.routing.xllm_slo_aware import Answering, Policy, pools_of, registered, tpot_s
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


def flight(
    id: str, replica: str, *, tokens: int = 100, since_s: float | None = None, **fields: Any
) -> Flight:
    """A request that is answered at a replica, since some moment or not yet."""
    request = fakes.request(id, prompt_tokens=tokens)
    return Flight(
        request, 0, "m", 3, replica=replica, started=since_s is not None, started_s=since_s or 0.0, **fields
    )


def test_a_step_grows_with_requests_their_tokens_and_what_they_have_said() -> None:
    batch = Answering()
    batch.requests, batch.run_s = 63, 0.0
    fields = {"decode_step_s": 0.02, "decode_sequence_s": 1e-4, "decode_context_s": 1e-6}
    one = worker("a", running=63, context_tokens=65_536 - 100, **fields)
    request = fakes.request()  # of 100 tokens, the 64th
    assert tpot_s(request, one, batch, 1.0) == pytest.approx(0.02 + 32e-4 + 32_768e-6)
    batch.run_s = (
        0.1 / 1e-6 * (0.1 - 0.055968)
    )  # as many seconds as make answers long enough for 100 ms a token
    assert tpot_s(request, one, batch, 1.0) == pytest.approx(0.1)
    few = Answering()
    assert tpot_s(request, worker("b", **fields), few, 1.0) == 0.0  # a straight line, below where it begins


def test_answers_that_have_run_for_long_keep_no_objective() -> None:
    one, other, idle = decoding("a"), decoding("b"), worker("p")
    for since_s, expected in ((99.0, "a"), (-70_000.0, "b")):
        flights = {"x": flight("x", "a", since_s=since_s)}
        fleet = fakes.fleet(one, other, idle, now_s=100.0, flights=flights)
        assert Policy().route(fakes.request(), fleet) == Route(expected, prefill_on="p")


def test_requests_whose_prompt_is_computed_elsewhere_count_where_they_will_be_answered() -> None:
    one, other, idle = (decoding(name, decode_sequence_s=0.01) for name in "abp")
    idle.running = 0
    idle.context_tokens = 0
    flights = {f"x{n}": flight(f"x{n}", "a", prefill_on="p") for n in range(64)}
    fleet = fakes.fleet(one, other, idle, flights=flights)
    assert Policy().route(fakes.request(), fleet) == Route("b", prefill_on="p")


def written(*replicas: ReplicaView, flights: tuple[Flight, ...] = (), **fields: Any) -> Decision:
    fleet = fakes.fleet(*replicas, flights={one.request.id: one for one in flights})
    return Policy(as_written=True).route(fakes.request(**fields), fleet)


def test_as_written_one_that_can_do_both_decodes_for_good() -> None:
    full, idle = decoding("a", context_tokens=FULL), worker("b")
    assert written(full, idle, worker("c")) == Route("a", prefill_on="b")
    assert written(worker("a"), decoding("b"), worker("c")) == Route("a", prefill_on="b")
    fixed = worker("b", role="decode")
    assert [one.id for one in registered((worker("a"), fixed), ()).decoding] == ["b"]
    assert written(worker("a")) == Route("a")
    assert written(worker("a", role="decode"), worker("b", role="decode")).replica == "a"  # type: ignore[union-attr]


def test_as_written_the_queue_alone_counts_whatever_is_cached() -> None:
    known = fakes.request("known", prompt_tokens=3200, blocks=tuple(range(1, 201)))
    warm, cold = worker("b", sent=(known,)), worker("c")
    waits = flight("x", "a", tokens=50, prefill_on="b")
    here = flight("y", "c", tokens=20)
    asked = {"prompt_tokens": 3200, "blocks": known.blocks}
    assert written(worker("a"), warm, cold, flights=(waits,), **asked) == Route("a", prefill_on="c")
    assert written(worker("a"), warm, cold, flights=(waits, here), **asked) == Route("a", prefill_on="c")
    assert written(worker("a"), warm, cold, flights=(here,), **asked) == Route("a", prefill_on="b")


def test_as_written_prompts_that_wait_go_to_a_decoding_replica_with_slack() -> None:
    first, best = worker("a", role="decode", running=1, context_tokens=9000), worker("b", role="decode")
    late = flight("x", "p", tokens=2000)
    assert written(first, best, worker("p"), flights=(late,)) == Route("a", prefill_on="b")
    own = flight("y", "b", tokens=3000)
    assert written(first, best, worker("p"), flights=(late, own)) == Route("a", prefill_on="p")
    unknown = written(worker("a", decode_step_s=None, prefill_tokens_per_s=None), worker("b"))
    assert unknown == Route("a", prefill_on="b")


@pytest.mark.parametrize("setting", ["slo_ttft_s", "slo_tpot_s", "assumed_tokens_per_s"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    zero: dict[str, Any] = {setting: 0}
    with pytest.raises(ValueError, match=f"{setting} is 0"):
        Policy(**zero)

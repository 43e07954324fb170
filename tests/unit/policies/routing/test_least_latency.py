"""Least latency: paces are learned from first tokens and ends, and tell who is expected to be done first."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Cancelled, Event, Failed, Finished, Reported, Started
from millrace.core.fleet import Hold, ReplicaView, Route, Sent
from millrace.core.replica import Phase
from millrace.policies.routing.least_latency import Policy
from millrace.testing import fakes

ASKED = fakes.request(prompt_tokens=100, expected_tokens=10)


def _answered(policy: Policy, replica: str, *, wait_s: float, decode_s: float, id: str = "a") -> None:
    """Let a replica answer 100 prompt tokens with 20, in this time to the first of them and after it."""
    policy.note(Sent(1.0, fakes.request(id, prompt_tokens=100), replica))
    policy.note(Started(1.0 + wait_s, id))
    policy.note(Finished(1.0 + wait_s + decode_s, id, output_tokens=20))


def _expected_s(policy: Policy, *replicas: ReplicaView, **fields: Any) -> list[float]:
    request = fakes.request(**{"prompt_tokens": 100, "expected_tokens": 10, **fields})
    return policy.expected_s(request, replicas)


def test_waiting_and_decoding_are_expected_at_the_pace_learned() -> None:
    policy = Policy()
    _answered(policy, "r", wait_s=2.0, decode_s=4.0)
    # 0.02 s for each prompt token, queued or its own, and 0.2 s for each token of the answer
    assert _expected_s(policy, fakes.replica("r", queued_tokens=50)) == [150 * 0.02 + 10 * 0.2]
    assert _expected_s(policy, fakes.replica("r"), prompt_tokens=500) == [500 * 0.02 + 10 * 0.2]


def test_an_answer_of_unknown_length_is_as_long_as_those_before_it_or_usual() -> None:
    policy = Policy()
    speedy = fakes.replica("r", prefill_tokens_per_s=100.0, decode_step_s=0.5)
    assert _expected_s(policy, speedy, expected_tokens=None) == [1.0 + 100 * 0.5]
    _answered(policy, "r", wait_s=1.0, decode_s=4.0)
    assert _expected_s(policy, speedy, expected_tokens=None) == [1.0 + 20 * 0.2]


def test_what_was_queued_in_front_is_part_of_the_work() -> None:
    policy = Policy()
    for name in ("a", "b"):
        policy.note(Sent(0.0, fakes.request(name, prompt_tokens=100), "r"))
    policy.note(Started(1.0, "a"))
    policy.note(Started(2.0, "b"))
    # 1 s for 100 tokens and 2 s for 200
    assert _expected_s(policy, fakes.replica("r")) == pytest.approx([1.0])


def test_older_requests_count_less_and_less() -> None:
    policy = Policy(window_requests=2)
    for n, wait_s in enumerate((8.0, 1.0, 1.0)):
        _answered(policy, "r", wait_s=wait_s, decode_s=0.0, id=f"q{n}")
    assert _expected_s(policy, fakes.replica("r")) == pytest.approx(
        [(8 / 4 + 1 / 2 + 1) / (1 / 4 + 1 / 2 + 1)]
    )


def test_who_has_answered_nothing_is_as_slow_as_the_slowest_until_others_have_queues() -> None:
    policy = Policy()
    _answered(policy, "fast", wait_s=1.0, decode_s=2.0)
    _answered(policy, "slow", wait_s=2.0, decode_s=4.0)
    fast, slow, new = (fakes.replica(name) for name in ("fast", "slow", "new"))
    assert _expected_s(policy, fast, slow, new) == [2.0, 4.0, 4.0]
    assert policy.route(ASKED, fakes.fleet(fast, slow, new)) == Route("fast")
    fast.queued_tokens, slow.queued_tokens = 500, 500
    assert policy.route(ASKED, fakes.fleet(fast, slow, new)) == Route("new")


def test_before_any_answer_the_speeds_bought_decide_or_an_assumed_one() -> None:
    bought = fakes.replica("bought", prefill_tokens_per_s=200.0, decode_step_s=0.01)
    assert _expected_s(Policy(), bought, fakes.replica("x")) == [0.5 + 0.1, 0.1]
    assert _expected_s(Policy(assumed_tokens_per_s=50.0), fakes.replica("x")) == [2.0]


def test_within_the_buffer_the_one_with_fewer_requests_is_chosen() -> None:
    policy = Policy(buffer=0.5)
    _answered(policy, "a", wait_s=1.0, decode_s=0.0)
    _answered(policy, "b", wait_s=1.4, decode_s=0.0)
    a, b = fakes.replica("a", running=2), fakes.replica("b", running=1)
    assert policy.route(ASKED, fakes.fleet(a, b)) == Route("b")
    _answered(policy, "b", wait_s=4.0, decode_s=0.0)
    assert policy.route(ASKED, fakes.fleet(a, b)) == Route("a")


def test_equals_are_drawn_among_those_with_the_fewest_requests() -> None:
    fleet = fakes.fleet(fakes.replica("a", running=1), fakes.replica("b"), fakes.replica("c"))
    assert {Policy().route(fakes.request(f"q{n}"), fleet) for n in range(40)} == {Route("b"), Route("c")}


def test_a_request_that_ended_early_or_was_never_sent_teaches_nothing() -> None:
    policy, replica = Policy(), fakes.replica("r", prefill_tokens_per_s=100.0)
    ends: list[Event] = [Failed(9.0, "a", "broken"), Cancelled(9.0, "a"), Finished(9.0, "a")]
    for n, end in enumerate(ends):
        policy.note(Sent(0.0, fakes.request("a", prompt_tokens=100), "r"))
        policy.note(end)
        policy.note(Started(9.0 + n, "never"))
        policy.note(Cancelled(9.0 + n, "never"))
    assert _expected_s(policy, replica) == [1.0]
    _answered(policy, "r", wait_s=1.0, decode_s=4.0)  # nothing is left in its queue
    assert _expected_s(policy, replica) == [1.0 + 2.0]


def test_a_first_token_that_is_told_twice_counts_once() -> None:
    policy = Policy()
    policy.note(Sent(0.0, fakes.request("a", prompt_tokens=100), "r"))
    policy.note(Started(1.0, "a"))
    policy.note(Started(5.0, "a"))
    policy.note(Failed(6.0, "a", "broken"))
    assert _expected_s(policy, fakes.replica("r")) == [1.0]


def test_what_was_learned_of_a_process_ends_with_it() -> None:
    phases: list[tuple[Phase, float]] = [("ready", 6.0), ("draining", 6.0), ("starting", 0.1), ("gone", 0.1)]
    for phase, expected_s in phases:
        policy = Policy()
        _answered(policy, "r", wait_s=4.0, decode_s=4.0)
        policy.note(Reported(9.0, "r", phase))
        assert _expected_s(policy, fakes.replica("r")) == [expected_s]


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="window_requests is 0"):
        Policy(window_requests=0)
    with pytest.raises(ValueError, match="buffer is -1"):
        Policy(buffer=-1)
    with pytest.raises(ValueError, match="assumed_tokens_per_s is 0"):
        Policy(assumed_tokens_per_s=0)

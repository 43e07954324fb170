"""Llumnix: iterations until memory is full, by what is used, queued, kept free, and pretended."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from millrace.core.event import Cancelled, Failed, Finished, Moved, Started
from millrace.core.fleet import Hold, ReplicaView, Route, Sent
from millrace.core.replica import Limits, Report
from millrace.policies.routing.llumnix_freeness import Policy
from millrace.testing import fakes

SMALL = Limits(kv_blocks=100, block_tokens=1)


def _replica(id: str = "r", **fields: Any) -> ReplicaView:
    return fakes.replica(id, limits=SMALL, **fields)


def _sent(id: str, replica: str = "r", tokens: int = 10, **fields: Any) -> Sent:
    return Sent(0.0, fakes.request(id, prompt_tokens=tokens, **fields), replica)


def _free(policy: Policy, replica: ReplicaView) -> float:
    return policy.freeness([replica], 0.0)[0]


def test_freeness_is_what_is_left_by_the_size_of_the_batch() -> None:
    policy = Policy()
    policy.note(_sent("head", tokens=10))
    policy.note(_sent("behind", tokens=30))
    busy = _replica(running=2, context_tokens=50, waiting=2, queued_tokens=40)
    assert _free(policy, busy) == (100 - 60) / 2 == 20.0


def test_the_whole_queue_counts_if_wanted_as_usage_and_as_batch() -> None:
    busy = _replica(running=2, context_tokens=50, waiting=2, queued_tokens=40)
    assert _free(Policy(whole_queue=True), busy) == 10 / 4
    assert _free(Policy(whole_queue=True), _replica()) == 100.0


def test_an_idle_replica_is_as_free_as_its_memory_is_large() -> None:
    assert _free(Policy(), _replica()) == 100.0
    assert _free(Policy(), _replica(coming_tokens=10)) == 90.0


def test_a_queue_that_was_not_seen_to_grow_counts_in_full() -> None:
    assert _free(Policy(), _replica(waiting=2, queued_tokens=40)) == 60.0


def test_the_next_one_is_head_of_the_queue_when_the_first_has_started_or_gone() -> None:
    replica = _replica(waiting=1, queued_tokens=90)
    for left in (Started(1.0, "a"), Cancelled(1.0, "a"), Failed(1.0, "a", "broken"), Finished(1.0, "a")):
        policy = Policy()
        policy.note(_sent("a", tokens=30))
        policy.note(_sent("b", tokens=20))
        assert _free(policy, replica) == 70.0
        policy.note(left)
        assert _free(policy, replica) == 80.0


def test_room_is_kept_once_beside_running_requests_of_high_priority() -> None:
    policy = Policy(headroom_tokens=40)
    busy = _replica(running=2, context_tokens=20)
    for name in ("a", "b"):
        policy.note(_sent(name, priority=1))
        assert _free(policy, busy) == (40.0 if name == "a" else 20.0)
        policy.note(Started(1.0, name))
        assert _free(policy, busy) == 20.0
    policy.note(Finished(2.0, "a"))
    assert _free(policy, busy) == 20.0
    policy.note(Finished(2.0, "b"))
    assert _free(policy, busy) == 40.0


def test_a_request_of_ordinary_priority_has_no_headroom() -> None:
    policy = Policy(headroom_tokens=40)
    policy.note(_sent("a"))
    policy.note(Started(1.0, "a"))
    assert _free(policy, _replica(running=1)) == 100.0


def test_headroom_moves_with_its_request() -> None:
    policy = Policy(headroom_tokens=40)
    policy.note(_sent("a", priority=1))
    policy.note(Started(1.0, "a"))
    policy.note(Moved(2.0, "a", "other"))
    assert policy.freeness([_replica(running=1), _replica("other", running=1)], 0.0) == [100.0, 60.0]
    policy.note(_sent("a", "third", priority=1))
    assert _free(policy, _replica("other", running=1)) == 100.0


def test_news_of_requests_that_were_never_sent_changes_nothing() -> None:
    policy = Policy()
    for fact in (Started(0.0, "x"), Moved(0.0, "x", "r"), Finished(0.0, "x")):
        policy.note(fact)
    assert _free(policy, _replica()) == 100.0


def test_a_draining_replica_is_infinitely_full_however_empty() -> None:
    draining = _replica("draining", phase="draining")
    assert _free(Policy(), draining) == -inf
    fleet = fakes.fleet(draining, _replica("full", running=9, context_tokens=99))
    assert Policy().route(fakes.request(), fleet) == Route("full")


def test_unknown_memory_is_as_full_as_the_fullest_known() -> None:
    full = _replica("full", report=Report(now_s=0.0, kv_free_tokens=10))
    half = _replica("half", report=Report(now_s=0.0, kv_free_tokens=50))
    assert Policy().freeness([full, half, _replica("silent")], 0.0) == pytest.approx([10.0, 50.0, 10.0])


def test_the_freest_is_chosen_and_equals_are_drawn() -> None:
    replicas = [_replica("a"), _replica("b"), _replica("c", running=1, context_tokens=1)]
    decisions = {Policy().route(fakes.request(f"q{n}"), fakes.fleet(*replicas)) for n in range(40)}
    assert decisions == {Route("a"), Route("b")}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_headroom_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="headroom_tokens is -1"):
        Policy(headroom_tokens=-1)

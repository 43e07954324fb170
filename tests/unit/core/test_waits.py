"""Predicted waits, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Cancelled, Finished, Prefilled, Reported, Started, Ticked
from millrace.core.fleet import ReplicaView, Sent
from millrace.core.replica import Limits
from millrace.core.waits import Waits
from millrace.testing import fakes

FAST: dict[str, Any] = {"prefill_tokens_per_s": 1000.0, "decode_step_s": 0.1}


def sent(
    name: str, replica: str = "r", *, now_s: float = 0.0, tokens: int = 1000, moved: bool = False
) -> Sent:
    return Sent(now_s, fakes.request(name, prompt_tokens=tokens), replica, moved, tokens)


def first_token_s(waits: Waits, replica: ReplicaView, *, now_s: float = 0.0, **fields: Any) -> float:
    request = fakes.request(**{"prompt_tokens": 1000, **fields})
    return waits.first_token_s(request, [replica], fakes.fleet(replica, now_s=now_s))[0]


def test_a_first_token_comes_after_the_queue_and_what_the_cache_lacks() -> None:
    waits = Waits(1.0)
    replica = fakes.replica("r", waiting=1, queued_tokens=500, sent=(fakes.request(blocks=(1, 2)),), **FAST)
    assert first_token_s(waits, replica) == pytest.approx(1.5)
    assert first_token_s(waits, replica, blocks=(1, 2, 3)) == pytest.approx(1.5 - 0.032)
    assert first_token_s(waits, fakes.replica("s", **FAST), prompt_tokens=32) == pytest.approx(0.032)


def test_long_prompts_cost_more_by_every_pair_of_tokens() -> None:
    waits = Waits(1.0)
    waits.note(sent("a", tokens=100))
    replica = fakes.replica("r", waiting=1, queued_tokens=100, attended_s=1e-4, **FAST)
    assert first_token_s(waits, replica) == pytest.approx(0.1 + 5000e-4 + 1.0 + 500_000e-4)


def test_requests_that_run_slow_each_step_down() -> None:
    waits, limits = Waits(1.0), Limits(step_tokens=300)
    told = fakes.replica("r", running=2, context_tokens=50, limits=limits, context_s=0.001, **FAST)
    assert first_token_s(waits, told) == pytest.approx(1.0 + 4 * 0.05)
    untold = fakes.replica("r", running=2, context_tokens=50, limits=limits, **FAST)
    assert first_token_s(waits, untold) == pytest.approx(1.0 + 4 * 0.1)


def test_an_adapter_that_is_not_there_has_to_be_loaded() -> None:
    waits = Waits(1.0)
    replica = fakes.replica("r", adapters=("a",), adapter_load_s=0.5, **FAST)
    assert first_token_s(waits, replica, adapter="a") == pytest.approx(1.0)
    assert first_token_s(waits, replica, adapter="b") == pytest.approx(1.5)


def test_the_prompt_in_front_has_been_worked_on_since_the_one_before_was_done() -> None:
    waits = Waits(1.0)
    for name in ("a", "b"):
        waits.note(sent(name))
    replica = fakes.replica("r", waiting=2, queued_tokens=2000, **FAST)
    assert first_token_s(waits, replica, now_s=0.75) == pytest.approx(3.0 - 0.75)
    assert first_token_s(waits, replica, now_s=9.0) == pytest.approx(3.0 - 1.0)
    waits.note(Started(1.25, "a"))
    replica.queued_tokens = 1000
    assert first_token_s(waits, replica, now_s=1.5) == pytest.approx(2.0 - 0.25)
    waits.note(sent("c", now_s=1.5))
    waits.note(Cancelled(1.75, "c"))  # it was not in front
    assert first_token_s(waits, replica, now_s=2.0) == pytest.approx(2.0 - 0.75)


def test_turns_come_one_after_the_other() -> None:
    waits = Waits(1.0)
    waits.note(Ticked(0.0))
    for name in ("a", "b"):
        waits.note(sent(name))
    waits.note(sent("x", "elsewhere", tokens=300))
    waits.note(sent("x", "r", now_s=0.25, tokens=200, moved=True))
    replica = fakes.replica("r", **FAST)
    [speeds] = waits.speeds([replica], fakes.fleet(replica))
    turns = list(waits.turns(replica, speeds, 0.5))
    assert [(t.request_id, t.ahead_s, t.own_s, t.sent_s, t.moved) for t in turns] == [
        ("a", 0.0, 1.0, 0.0, False),
        ("b", 0.5, 1.0, 0.0, False),
        ("x", 1.5, 0.2, 0.0, True),
    ]
    assert not list(waits.turns(fakes.replica("elsewhere"), speeds, 0.5))


@pytest.mark.parametrize("end", [Started(1.0, "a"), Prefilled(1.0, "a"), Finished(1.0, "a")])
def test_nothing_is_remembered_of_who_has_left(end: Started | Prefilled | Finished) -> None:
    waits = Waits(1.0)
    waits.note(Reported(0.0, "r", "ready"))
    waits.note(sent("a"))
    waits.note(end)
    waits.note(end)
    left = (waits._queued, waits._queues, waits._pairs, waits._since_s)
    assert left == ({}, {}, {}, {})


def test_a_request_that_is_sent_again_counts_from_then() -> None:
    waits, replica = Waits(1.0), fakes.replica("r", **FAST)
    waits.note(sent("a"))
    waits.note(sent("a", now_s=3.0))
    [speeds] = waits.speeds([replica], fakes.fleet(replica))
    assert [turn.sent_s for turn in waits.turns(replica, speeds, 3.0)] == [3.0]


def test_what_is_not_known_of_a_replica_is_as_slow_as_the_slowest() -> None:
    waits, known = Waits(50.0), fakes.replica("k", attended_s=1e-3, **FAST)
    slow = fakes.replica("s", prefill_tokens_per_s=100.0)
    dark = fakes.replica("d")
    found = waits.speeds([dark, known, dark], fakes.fleet(known, slow, dark))
    assert (found[0].tokens_per_s, found[0].step_s, found[0].attended_s) == (100.0, 0.1, 1e-3)
    assert found[1].tokens_per_s == 1000.0
    assert waits.speeds([dark], fakes.fleet(dark))[0].tokens_per_s == 50.0
    with pytest.raises(ValueError, match="assumed_tokens_per_s is 0"):
        Waits(0.0)


def test_a_prompt_in_front_that_takes_far_too_long_is_taken_to_have_lost_its_cache() -> None:
    plain, doubting = Waits(1.0), Waits(1.0, doubting=True)
    long = fakes.request("long", prompt_tokens=8000)
    for waits in (plain, doubting):
        waits.note(Sent(0.0, long, "r", queued_tokens=1000))
        waits.note(sent("behind", now_s=0.5, tokens=500))
    replica = fakes.replica("r", waiting=2, queued_tokens=1500, **FAST)
    for now_s, believed_s, doubted_s in ((1.7, 0.5, 0.5), (1.8, 0.5, 6.7), (9.0, 0.5, 0.5)):
        assert first_token_s(plain, replica, now_s=now_s, prompt_tokens=1) == pytest.approx(
            believed_s + 0.001
        )
        assert first_token_s(doubting, replica, now_s=now_s, prompt_tokens=1) == pytest.approx(
            doubted_s + 0.001
        )
    fleet = fakes.fleet(replica, now_s=1.8)
    [speeds] = doubting.speeds([replica], fleet)
    turns = [(turn.request_id, turn.ahead_s, turn.own_s) for turn in doubting.turns(replica, speeds, 1.8)]
    assert turns == [("long", 0.0, 8.0), ("behind", pytest.approx(6.2), 0.5)]

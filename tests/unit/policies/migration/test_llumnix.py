"""Llumnix: who is short of memory is paired with who has most, and what moves first."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control.flight import Flight
from millrace.core.event import Ticked
from millrace.core.fleet import ReplicaView, Shift
from millrace.core.replica import Limits
from millrace.policies.migration.llumnix import Policy
from millrace.testing import fakes

SMALL = Limits(kv_blocks=1000, block_tokens=1)


def replica(id: str, used: int, running: int, **fields: Any) -> ReplicaView:
    return fakes.replica(id, limits=SMALL, running=running, context_tokens=used, **fields)


def flight(id: str, replica: str, tokens: int = 100, *, started: bool = True, **fields: Any) -> Flight:
    flying = {k: fields.pop(k) for k in ("moving_to", "prefill_on", "started_s") if k in fields}
    request = fakes.request(id, prompt_tokens=tokens, **fields)
    return Flight(request, 0, "m", 3, replica=replica, started=started, **flying)


def shifts(policy: Policy, replicas: list[ReplicaView], *flights: Flight, now_s: float = 0.0) -> list[Shift]:
    fleet = fakes.fleet(*replicas, now_s=now_s, flights={one.request.id: one for one in flights})
    return list(policy.rebalance(fleet))


def moved(
    policy: Policy, replicas: list[ReplicaView], *flights: Flight, now_s: float = 0.0
) -> list[tuple[str, str]]:
    return [(one.request_id, one.replica) for one in shifts(policy, replicas, *flights, now_s=now_s)]


FULL = replica("full", 960, 4)  # 10 iterations are left
FREE = replica("free", 100, 1)


def test_of_who_runs_where_memory_is_short_one_moves_at_a_time_and_the_shortest_first() -> None:
    here = [flight("long", "full", 400), flight("short", "full", 120), flight("other", "full", 200)]
    assert moved(Policy(), [FULL, FREE], *here) == [("short", "free")]
    assert moved(Policy(concurrency=2), [FULL, FREE], *here) == [("short", "free")]  # which is enough
    assert moved(Policy(low=150, high=150, concurrency=2), [FULL, FREE], *here) == [
        ("short", "free"),
        ("other", "free"),
    ]


def test_a_move_under_way_counts() -> None:
    here = [flight("short", "full", 30, moving_to="free"), flight("long", "full", 300)]
    assert moved(Policy(), [FULL, FREE], *here) == []
    assert moved(Policy(concurrency=2), [FULL, FREE], *here) == [("long", "free")]


def test_lower_priority_goes_before_shorter_answers() -> None:
    here = [flight("short", "full", 90, priority=1), flight("long", "full", 400)]
    assert moved(Policy(), [FULL, FREE], *here) == [("long", "free")]


def test_what_was_generated_is_estimated_by_the_time_since_the_first_token() -> None:
    timed = replica("full", 960, 4, decode_step_s=0.1)
    older = flight("older", "full", 90, started_s=0.0, max_tokens=500)
    newer = flight("newer", "full", 95, started_s=9.0, max_tokens=500)
    assert shifts(Policy(), [timed, FREE], older, newer, now_s=10.0) == [
        Shift("newer", "free", "105 tokens to the freest")
    ]
    assert moved(Policy(), [FULL, FREE], older, newer, now_s=10.0) == [("older", "free")]
    brief = flight("brief", "full", 90, started_s=0.0, max_tokens=3)
    assert shifts(Policy(), [timed, FREE], brief, now_s=10.0)[0].why == "93 tokens to the freest"


def test_the_least_free_is_paired_with_the_freest() -> None:
    fleet = [FULL, replica("fuller", 990, 4), FREE, replica("freer", 0, 0)]
    here = [flight("a", "full", 90), flight("b", "fuller", 90)]
    assert moved(Policy(), fleet, *here) == [("b", "freer"), ("a", "free")]


def test_a_target_is_not_made_a_source() -> None:
    assert moved(Policy(), [FULL, replica("half", 800, 2)], flight("big", "full", 120)) == []
    assert moved(Policy(), [FULL, replica("half", 800, 2)], flight("big", "full", 50)) == [("big", "half")]


def test_whoever_drains_loses_everything_and_is_no_target() -> None:
    leaving = replica("leaving", 100, 1, phase="draining", waiting=1, queued_tokens=50)
    here = [flight("runs", "leaving"), flight("waits", "leaving", 50, started=False)]
    assert moved(Policy(), [leaving, FREE], *here) == [("waits", "free"), ("runs", "free")]
    assert moved(Policy(), [FULL, replica("leaving", 0, 0, phase="draining")], flight("a", "full")) == []


def test_engines_that_cannot_move_a_cache_move_who_waits() -> None:
    queue = replica("full", 900, 3, waiting=1, queued_tokens=90)
    here = [flight("runs", "full"), flight("waits", "full", 90, started=False)]
    assert moved(Policy(live=False), [queue, FREE], *here) == [("waits", "free")]
    assert moved(Policy(), [queue, FREE], *here) == [("runs", "free")]


def test_some_requests_cannot_move() -> None:
    here = [
        flight("apart", "full", prefill_on="p"),
        flight("elsewhere", "free"),
        flight("other model", "full", model="n"),
    ]
    assert moved(Policy(), [FULL, FREE], *here) == []
    assert moved(Policy(), [FULL, replica("gone", 0, 0, phase="gone")], flight("a", "full")) == []
    assert moved(Policy(), [FULL, replica("p", 0, 0, role="prefill")], flight("a", "full")) == []
    assert moved(Policy(), []) == []
    Policy().note(Ticked(0.0))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"high is 1\.0; it must be at least low"):
        Policy(low=2.0, high=1.0)
    with pytest.raises(ValueError, match="concurrency is 0"):
        Policy(concurrency=0)

"""Requests that nobody can take wait: in order, within bounds, and no longer than it makes sense."""

from __future__ import annotations

import pytest

from millrace.core.event import (
    Action,
    Cancelled,
    Dispatch,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.replica import Phase, ReplicaSpec
from tests.unit.control.scripted import Capped, Picky, Shy, Urgent, arrive, controller_of, join, play

TOO_LATE = "the request's deadline passed while it waited"


def _sent(actions: list[Action]) -> list[str]:
    return [action.request_id for action in actions if isinstance(action, Dispatch)]


@pytest.mark.parametrize("phase", ["starting", "draining", "gone"])
def test_a_request_waits_for_a_replica_that_may_come_back(phase: Phase) -> None:
    controller = controller_of()
    join(controller, "a", phase)
    assert arrive(controller, "q") == []
    assert controller.on(Reported(1.0, "a", "ready")) == [Dispatch("q", "a")]
    assert controller.next_deadline_s() is None


def test_a_request_waits_for_a_replica_that_has_not_said_what_it_serves() -> None:
    controller = controller_of()
    controller.on(Reported(0.0, "a", "ready", ReplicaSpec(models=())))
    assert arrive(controller, "q") == []
    assert controller.on(Reported(1.0, "a", "ready", ReplicaSpec(models=("m",)))) == [Dispatch("q", "a")]


def test_those_who_wait_are_sent_in_the_order_of_the_queueing_policy() -> None:
    controller = controller_of(queueing=Urgent())
    join(controller, "a", "starting")
    for n, priority in enumerate((0, 5, 0, 9)):
        arrive(controller, f"q{n}", priority=priority)
    assert _sent(controller.on(Reported(1.0, "a", "ready"))) == ["q3", "q1", "q0", "q2"]


def test_a_queueing_policy_may_put_nobody_forward() -> None:
    controller = controller_of("a", queueing=Shy())
    assert arrive(controller, "q") == []
    assert controller.on(Ticked(30.0)) == [Refuse("q", "no replica became free in time", 503, 30.0)]


def test_a_request_behind_one_that_must_wait_waits_too() -> None:
    controller = controller_of("a", routing=Picky())
    assert arrive(controller, "long", prompt_tokens=500) == []
    assert arrive(controller, "short") == []


def test_nobody_waits_behind_a_client_that_left() -> None:
    controller = controller_of("a", routing=Picky())
    arrive(controller, "long", prompt_tokens=500)
    arrive(controller, "short")
    assert controller.on(Cancelled(1.0, "long")) == [Dispatch("short", "a")]


def test_nobody_waits_behind_a_request_that_expired() -> None:
    controller = controller_of("a", routing=Picky())
    arrive(controller, "long", prompt_tokens=500, deadline_s=3.0)
    arrive(controller, "short")
    assert controller.on(Ticked(3.0)) == [Refuse("long", TOO_LATE, 504), Dispatch("short", "a")]


@pytest.mark.parametrize(
    "change",
    [
        Started(1.0, "q0"),
        Finished(1.0, "q0"),
        Failed(1.0, "q0", "bad", retryable=False),
        Cancelled(1.0, "q0"),
        Reported(1.0, "b", "ready", ReplicaSpec(models=("m",))),
    ],
    ids=lambda event: type(event).__name__,
)
def test_whatever_changes_on_a_replica_those_who_wait_are_asked_about_again(change: Failed) -> None:
    controller = controller_of("a", routing=Capped(most=1))
    arrive(controller, "q0")
    assert arrive(controller, "q1") == []
    assert _sent(controller.on(change)) == ["q1"]


def test_room_on_a_replica_is_room_for_all_its_models() -> None:
    controller = controller_of(routing=Capped(most=1))
    join(controller, "a", "ready", "m", "n")
    join(controller, "b", "ready", "other")
    arrive(controller, "q0", model="m")
    assert arrive(controller, "q1", model="n") == []
    assert controller.on(Finished(1.0, "q0")) == [Dispatch("q1", "a")]


def test_models_wait_separately() -> None:
    controller = controller_of("a")
    join(controller, "b", "starting", "n")
    assert arrive(controller, "q0", model="n") == []
    assert arrive(controller, "q1", model="m") == [Dispatch("q1", "a")]


def test_a_request_expires_exactly_at_the_longest_hold() -> None:
    controller = controller_of(max_hold_s=4.0)
    join(controller, "a", "starting")
    arrive(controller, "q", 1.0)
    assert controller.next_deadline_s() == 5.0
    assert controller.on(Ticked(4.999)) == []
    assert controller.on(Ticked(5.0)) == [Refuse("q", "no replica became free in time", 503, 4.0)]
    assert controller.next_deadline_s() is None
    assert controller.state.flights == {}
    assert controller.state.held == {}


def test_a_request_expires_at_its_deadline_when_that_comes_first() -> None:
    controller = controller_of()
    join(controller, "a", "starting")
    arrive(controller, "q", 1.0, deadline_s=3.0)
    assert controller.next_deadline_s() == 3.0
    assert controller.on(Ticked(3.0)) == [Refuse("q", TOO_LATE, 504)]


def test_requests_expire_in_the_order_of_their_deadlines() -> None:
    controller = controller_of()
    join(controller, "a", "starting")
    for name, deadline_s in (("late", 9.0), ("soon", 3.0), ("later", 12.0)):
        arrive(controller, name, deadline_s=deadline_s)
    assert controller.on(Ticked(10.0)) == [Refuse("soon", TOO_LATE, 504), Refuse("late", TOO_LATE, 504)]
    assert controller.next_deadline_s() == 12.0


def test_a_request_that_arrives_after_its_deadline_is_not_sent() -> None:
    assert arrive(controller_of("a"), "q", 5.0, deadline_s=4.0) == [Refuse("q", TOO_LATE, 504)]


def test_a_request_is_still_sent_at_the_moment_of_its_deadline() -> None:
    assert arrive(controller_of("a"), "q", 5.0, deadline_s=5.0) == [Dispatch("q", "a")]


def test_a_request_that_is_overdue_is_refused_even_if_a_replica_came_first() -> None:
    controller = controller_of()
    join(controller, "a", "starting")
    arrive(controller, "overdue", deadline_s=3.0)
    arrive(controller, "patient")
    back = controller.on(Reported(3.5, "a", "ready"))
    assert back == [Refuse("overdue", TOO_LATE, 504), Dispatch("patient", "a")]


def test_a_deadline_does_not_bind_in_flight() -> None:
    controller = controller_of("a")
    arrive(controller, "q", deadline_s=3.0)
    assert controller.next_deadline_s() is None
    assert play(controller, Ticked(4.0), Started(5.0, "q"), Finished(6.0, "q")) == []


def test_without_patience_a_request_is_sent_at_once_or_refused() -> None:
    assert arrive(controller_of("a", max_hold_s=0.0), "q") == [Dispatch("q", "a")]
    controller = controller_of(max_hold_s=0.0)
    join(controller, "a", "starting")
    assert arrive(controller, "q") == [Refuse("q", "no replica became free in time", 503, 1.0)]


def test_a_full_queue_turns_the_next_away() -> None:
    controller = controller_of(max_held=2)
    join(controller, "a", "starting", "m", "n")
    assert arrive(controller, "q0") == []
    assert arrive(controller, "q1") == []
    assert arrive(controller, "q2") == [Refuse("q2", "the queue is full", 429, 30.0)]
    assert arrive(controller, "other", model="n") == []
    assert "q2" not in controller.state.flights


def _drained(
    finishes_s: list[float], now_s: float, *, held: int = 2, max_hold_s: float = 30.0
) -> float | None:
    """Let requests finish at these times and `held` more wait; return what the next one is told."""
    controller = controller_of("a", max_held=held, max_hold_s=max_hold_s)
    for n, finish_s in enumerate(finishes_s):
        arrive(controller, f"f{n}", finish_s)
        controller.on(Finished(finish_s, f"f{n}"))
    controller.on(Reported(now_s, "a", "gone"))
    for n in range(held):
        arrive(controller, f"q{n}", now_s)
    refusal = arrive(controller, "one more", now_s)[0]
    assert isinstance(refusal, Refuse)
    return refusal.retry_after_s


def test_a_client_is_told_to_return_when_the_queue_has_drained_at_its_recent_rate() -> None:
    # 4 finishes in the 5 s since the first: 0.8 a second, for the 2 who wait and the one who asks.
    assert _drained([1.0, 2.0, 3.0, 4.0, 5.0], 6.0) == pytest.approx(3 / 0.8)


def test_a_rate_is_measured_over_the_last_64_finishes() -> None:
    slow_then_fast = [float(n) for n in range(100)] + [100.0 + n / 100 for n in range(64)]
    assert _drained(slow_then_fast, 101.0, held=630) == pytest.approx(631 / 63)


@pytest.mark.parametrize(
    ("finishes_s", "now_s", "told_s"),
    [
        ([], 6.0, 30.0),  # nothing is known of the rate: the longest hold
        ([5.0], 6.0, 30.0),
        ([6.0, 6.0], 6.0, 30.0),
        ([5.0, 5.1, 5.2, 5.3, 5.4], 5.5, 1.0),  # 0.375 s
        ([0.0, 1.0], 1000.0, 120.0),  # 3000 s
    ],
)
def test_a_client_is_told_something_between_a_second_and_two_minutes(
    finishes_s: list[float], now_s: float, told_s: float
) -> None:
    assert _drained(finishes_s, now_s) == told_s


def test_a_very_patient_fleet_does_not_tell_clients_to_be_as_patient() -> None:
    assert _drained([], 0.0, max_hold_s=3600.0) == 120.0


def test_a_request_with_nobody_in_front_of_it_is_held_only_when_it_cannot_be_sent() -> None:
    controller = controller_of("a", routing=Capped(most=1))
    assert _sent(arrive(controller, "q0")) == ["q0"]
    assert (controller.state.held, controller.next_deadline_s()) == ({}, None)
    assert arrive(controller, "q1", 1.0) == []
    assert (list(controller.state.held["m"]), controller.next_deadline_s()) == (["q1"], 31.0)
    assert _sent(controller.on(Started(2.0, "q0"))) == ["q1"]
    assert (controller.state.held, controller.next_deadline_s()) == ({}, None)


def test_a_request_never_overtakes_those_that_are_held() -> None:
    controller = controller_of("a", routing=Picky())
    assert arrive(controller, "long", prompt_tokens=500) == []
    assert arrive(controller, "short", 1.0) == []
    assert list(controller.state.held["m"]) == ["long", "short"]


def test_a_queueing_policy_is_asked_about_a_request_that_is_alone() -> None:
    controller = controller_of("a", queueing=Shy())
    assert arrive(controller, "q0") == []
    assert arrive(controller, "q1") == []
    assert list(controller.state.held["m"]) == ["q0", "q1"]


def test_a_queueing_policy_may_put_a_newcomer_in_front() -> None:
    controller = controller_of("a", routing=Picky(), queueing=Urgent())
    assert arrive(controller, "long", prompt_tokens=500) == []
    assert _sent(arrive(controller, "urgent", 1.0, priority=1)) == ["urgent"]
    assert list(controller.state.held["m"]) == ["long"]


@pytest.mark.parametrize("phase", ["draining", "gone", "starting"])
def test_who_is_ready_is_looked_at_again_when_a_phase_changes(phase: Phase) -> None:
    controller = controller_of("a", "b", routing="round_robin")
    assert [_to(arrive(controller, f"q{n}")) for n in range(2)] == ["a", "b"]
    controller.on(Reported(1.0, "b", phase))
    assert [_to(arrive(controller, f"q{n}", 1.0)) for n in range(2, 4)] == ["a", "a"]
    controller.on(Reported(2.0, "b", "ready"))
    assert _to(arrive(controller, "q4", 2.0)) == "a"
    assert _to(arrive(controller, "q5", 2.0)) == "b"


def test_who_is_ready_is_looked_at_again_when_models_change_or_a_replica_is_lost() -> None:
    controller = controller_of("a", "b", routing="round_robin")
    arrive(controller, "q0")
    controller.on(Reported(1.0, "b", "ready", ReplicaSpec(models=("n",))))
    assert [_to(arrive(controller, f"q{n}", 1.0)) for n in (1, 2)] == ["a", "a"]
    assert _to(arrive(controller, "q3", 1.0, model="n")) == "b"
    controller.on(Failed(2.0, "q3", "reset", replica_down=True))
    assert list(controller.state.held["n"]) == ["q3"]


def _to(actions: list[Action]) -> str | None:
    return next((action.replica for action in actions if isinstance(action, Dispatch)), None)

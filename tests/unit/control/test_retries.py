"""A failed attempt is repeated elsewhere, up to a limit, and never after the first token."""

from __future__ import annotations

import pytest

from millrace.core.event import Cancelled, Dispatch, Failed, Finished, Refuse, Reported, Started, Ticked
from millrace.core.replica import Report
from tests.unit.control.scripted import Capped, arrive, controller_of, counts, join, play


def _down(now_s: float, id: str) -> Failed:
    return Failed(now_s, id, "connection reset", replica_down=True)


@pytest.mark.parametrize("routing", ["least_work", "round_robin", "two_choices", "prefix_affinity"])
def test_a_failed_attempt_is_repeated_on_every_other_replica_first(routing: str) -> None:
    controller = controller_of("a", "b", "c", routing=routing)
    actions = arrive(controller, "q")
    actions += play(controller, Failed(1.0, "q", "reset"), Failed(2.0, "q", "reset"))
    assert {action.replica for action in actions if isinstance(action, Dispatch)} == {"a", "b", "c"}
    assert [action.attempt for action in actions if isinstance(action, Dispatch)] == [1, 2, 3]


def test_the_only_replica_is_tried_again_when_it_is_not_down() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    assert controller.on(Failed(1.0, "q", "busy")) == [Dispatch("q", "a", attempt=2)]


def test_the_last_attempt_that_fails_ends_the_request() -> None:
    controller = controller_of("a", "b", max_attempts=2)
    arrive(controller, "q")
    controller.on(Failed(1.0, "q", "reset"))
    assert controller.on(Failed(2.0, "q", "reset")) == [Refuse("q", "no replica could answer: reset", 502)]
    assert controller.state.flights == {}


def test_a_failure_that_would_repeat_itself_ends_the_request() -> None:
    controller = controller_of("a", "b")
    arrive(controller, "q")
    failed = Failed(1.0, "q", "bad prompt", retryable=False)
    assert controller.on(failed) == [Refuse("q", "no replica could answer: bad prompt", 502)]


def test_an_answer_that_breaks_after_its_first_token_is_over() -> None:
    controller = controller_of("a", "b")
    arrive(controller, "q")
    assert play(controller, Started(1.0, "q"), Failed(2.0, "q", "reset")) == []
    assert controller.state.flights == {}
    assert all(counts(controller, name) == (0, 0, 0, 0) for name in "ab")


def test_a_replica_that_is_down_gets_nothing_until_it_reports_again() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    assert controller.on(_down(1.0, "q")) == []
    assert controller.state.replicas["a"].phase == "gone"
    assert arrive(controller, "q1", 1.5) == []
    assert controller.on(Reported(2.0, "a", "starting")) == []
    back = controller.on(Reported(3.0, "a", "ready"))
    assert back == [Dispatch("q", "a", attempt=2), Dispatch("q1", "a")]


def test_a_replica_that_is_down_has_lost_its_cache_and_its_last_report() -> None:
    controller = controller_of()
    join(controller, "a")
    controller.on(Reported(0.5, "a", "ready", report=Report(now_s=0.5, running=0)))
    arrive(controller, "q", blocks=(1, 2, 3))
    assert controller.prefix_index_bytes()["a"] > 0
    controller.on(_down(1.0, "q"))
    assert controller.prefix_index_bytes()["a"] == 0
    assert controller.state.replicas["a"].seen_s is None


def test_a_request_that_failed_on_the_only_replica_prefers_one_that_joins() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    controller.on(_down(1.0, "q"))
    assert join(controller, "b") == [Dispatch("q", "b", attempt=2)]


def test_requests_that_lost_their_replica_keep_their_order_of_arrival() -> None:
    controller = controller_of("a")
    for n in range(4):
        arrive(controller, f"q{n}", float(n))
    controller.on(Reported(4.0, "a", "gone"))
    arrive(controller, "q4", 4.0)
    play(controller, *(Failed(5.0, f"q{n}", "reset") for n in (2, 0, 3, 1)))
    back = controller.on(Reported(6.0, "a", "ready"))
    assert [a.request_id for a in back if isinstance(a, Dispatch)] == ["q0", "q1", "q2", "q3", "q4"]


def test_a_retried_request_waits_beyond_the_bound_of_the_queue() -> None:
    controller = controller_of("a", max_held=1)
    arrive(controller, "q0")
    controller.on(Reported(1.0, "a", "gone"))
    assert arrive(controller, "q1", 1.0) == []
    assert controller.on(Failed(2.0, "q0", "reset")) == []
    assert len(controller.state.held["m"]) == 2


def test_patience_starts_anew_when_an_attempt_fails() -> None:
    controller = controller_of("a", max_hold_s=10.0)
    arrive(controller, "q", 0.0)
    assert controller.on(_down(25.0, "q")) == []
    assert controller.next_deadline_s() == 35.0
    assert controller.on(Ticked(34.0)) == []
    assert controller.on(Ticked(35.0)) == [Refuse("q", "no replica became free in time", 503, 10.0)]


def test_the_end_of_an_earlier_wait_does_not_end_a_later_one() -> None:
    controller = controller_of(max_hold_s=10.0)
    join(controller, "a", "starting")
    join(controller, "b", "starting", "n")
    arrive(controller, "waits longer", 0.0, model="n")
    arrive(controller, "q", 0.5)
    play(controller, Reported(1.0, "a", "ready"), _down(6.0, "q"))
    assert len(controller.on(Ticked(10.5))) == 1
    assert controller.next_deadline_s() == 16.0


def test_a_failed_attempt_is_not_repeated_after_the_deadline() -> None:
    controller = controller_of("a", "b")
    arrive(controller, "q", 0.0, deadline_s=5.0)
    late = controller.on(Failed(6.0, "q", "reset"))
    assert late == [Refuse("q", "the request's deadline passed while it waited", 504)]
    assert controller.state.flights == {}


def test_a_failure_makes_room_for_who_waits_for_the_replica() -> None:
    controller = controller_of("a", routing=Capped(most=1))
    arrive(controller, "q0")
    assert arrive(controller, "q1") == []
    failed = controller.on(Failed(1.0, "q0", "bad", retryable=False))
    assert failed == [Refuse("q0", "no replica could answer: bad", 502), Dispatch("q1", "a")]


def test_a_held_retry_can_be_cancelled_and_finds_no_replica_to_stop() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    assert play(controller, _down(1.0, "q"), Cancelled(2.0, "q"), Finished(3.0, "q")) == []
    assert controller.state.flights == {}
    assert controller.next_deadline_s() is None

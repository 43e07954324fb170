"""The controller: where a request goes, and every way in which it can end."""

from __future__ import annotations

import pytest

from millrace.core.event import (
    Arrived,
    Cancel,
    Cancelled,
    Dispatch,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.testing import fakes
from tests.unit.control.scripted import Insists, Mute, Sheds, arrive, controller_of, counts, join, play


def test_a_request_is_sent_to_a_ready_replica_at_once() -> None:
    assert arrive(controller_of("a"), "q") == [Dispatch("q", "a", attempt=1)]


def test_a_request_for_a_model_that_nobody_serves_does_not_exist() -> None:
    assert arrive(controller_of("a"), "q", model="x") == [Refuse("q", "the model 'x' does not exist", 404)]
    assert arrive(controller_of(), "q") == [Refuse("q", "the model 'm' does not exist", 404)]


def test_the_same_id_cannot_be_in_flight_twice() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    with pytest.raises(ValueError, match="'q' is in flight already; ids must be unique"):
        arrive(controller, "q")


def test_an_id_may_be_used_again_after_its_end() -> None:
    controller = controller_of("a")
    play(controller, Arrived(0.0, fakes.request("q")), Finished(1.0, "q"))
    assert arrive(controller, "q", 2.0) == [Dispatch("q", "a")]


def test_a_request_that_finished_is_forgotten() -> None:
    controller = controller_of("a")
    assert arrive(controller, "q") == [Dispatch("q", "a")]
    assert play(controller, Started(1.0, "q"), Finished(2.0, "q")) == []
    assert controller.state.flights == {}
    assert counts(controller, "a") == (0, 0, 0, 0)


def test_an_answer_may_finish_without_a_first_token() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    controller.on(Finished(2.0, "q"))
    assert counts(controller, "a") == (0, 0, 0, 0)


def test_a_rejected_request_is_refused_with_the_policys_words() -> None:
    controller = controller_of("a", routing=Sheds(429))
    assert arrive(controller, "q") == [Refuse("q", "over budget", 429)]
    assert controller.state.flights == {}
    assert controller.state.held == {}
    assert controller.next_deadline_s() is None


@pytest.mark.parametrize("phase", ["starting", "draining", "gone"])
def test_a_policy_that_chooses_a_replica_that_is_not_ready_is_named(phase: str) -> None:
    controller = controller_of(routing=Insists("a"))
    with pytest.raises(ValueError, match=r"scripted chose 'a', which is no ready replica of 'm'"):
        play(
            controller,
            Reported(0.0, "a", phase, fakes.replica("a").spec),  # type: ignore[arg-type]
            Arrived(0.0, fakes.request("q")),
        )


def test_a_policy_that_chooses_a_replica_that_does_not_exist_or_serves_another_model_is_named() -> None:
    with pytest.raises(ValueError, match="chose 'b', which is no ready replica of 'm'"):
        arrive(controller_of("a", routing=Insists("b")), "q")
    controller = controller_of("a", routing=Insists("b"))
    join(controller, "b", "ready", "n")
    with pytest.raises(ValueError, match="chose 'b', which is no ready replica of 'm'"):
        arrive(controller, "q")


def test_a_policy_that_does_not_answer_is_named() -> None:
    with pytest.raises(ValueError, match="scripted answered None; it must Route, Hold or Reject"):
        arrive(controller_of("a", routing=Mute()), "q")


def test_a_client_that_leaves_before_the_first_token_stops_the_replica() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    assert controller.on(Cancelled(1.0, "q")) == [Cancel("q", "a")]
    assert counts(controller, "a") == (0, 0, 0, 0)


def test_a_client_that_leaves_in_the_middle_of_an_answer_stops_the_replica() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    assert play(controller, Started(1.0, "q"), Cancelled(2.0, "q")) == [Cancel("q", "a")]
    assert counts(controller, "a") == (0, 0, 0, 0)


def test_a_client_that_leaves_the_queue_leaves_no_trace() -> None:
    controller = controller_of()
    join(controller, "a", "starting")
    arrive(controller, "q")
    assert controller.on(Cancelled(1.0, "q")) == []
    assert controller.next_deadline_s() is None
    assert controller.on(Reported(2.0, "a", "ready")) == []


def test_whatever_is_heard_of_a_request_after_its_end_is_ignored() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    controller.on(Cancelled(1.0, "q"))
    late = (Started(2.0, "q"), Finished(2.0, "q"), Failed(2.0, "q", "late"), Cancelled(2.0, "q"))
    assert play(controller, *late) == []
    assert counts(controller, "a") == (0, 0, 0, 0)


def test_whatever_is_heard_of_a_request_that_never_arrived_is_ignored() -> None:
    controller = controller_of("a")
    unknown = (Started(2.0, "x"), Finished(2.0, "x"), Failed(2.0, "x", "late"), Cancelled(2.0, "x"))
    assert play(controller, *unknown) == []


def test_a_held_request_can_neither_start_nor_finish_nor_fail() -> None:
    controller = controller_of()
    join(controller, "a", "starting")
    arrive(controller, "q")
    early = (Started(1.0, "q"), Finished(1.0, "q"), Failed(1.0, "q", "early", retryable=False))
    assert play(controller, *early) == []
    assert controller.on(Reported(2.0, "a", "ready")) == [Dispatch("q", "a", attempt=1)]


def test_a_first_token_counts_once() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    play(controller, Started(1.0, "q"), Started(1.5, "q"))
    assert counts(controller, "a") == (0, 1, 0, 100)


def test_a_replica_that_drains_finishes_what_it_has_and_gets_nothing_new() -> None:
    controller = controller_of("a", "b")
    first = arrive(controller, "q0")
    assert isinstance(first[0], Dispatch)
    other = {"a": "b", "b": "a"}[first[0].replica]
    controller.on(Reported(1.0, first[0].replica, "draining"))
    sent = [arrive(controller, f"q{n}", 1.0)[0] for n in range(1, 6)]
    assert sent == [Dispatch(f"q{n}", other) for n in range(1, 6)]
    controller.on(Finished(2.0, "q0"))
    assert counts(controller, first[0].replica) == (0, 0, 0, 0)


def test_an_answer_from_a_replica_thought_gone_still_counts() -> None:
    controller = controller_of("a")
    arrive(controller, "q")
    controller.on(Reported(1.0, "a", "gone"))
    assert counts(controller, "a") == (1, 0, 100, 0)
    assert play(controller, Started(1.5, "q"), Finished(2.0, "q")) == []
    assert counts(controller, "a") == (0, 0, 0, 0)
    assert controller.state.flights == {}


def test_turns_are_taken_by_model_even_when_models_alternate() -> None:
    controller = controller_of(routing="round_robin")
    for name in "ab":
        join(controller, name, "ready", "m", "n")
    sent = [arrive(controller, f"q{n}", model="mn"[n % 2])[0] for n in range(8)]
    replicas = [action.replica for action in sent if isinstance(action, Dispatch)]
    assert replicas == ["a", "a", "b", "b", "a", "a", "b", "b"]


def test_a_request_over_which_a_policy_failed_can_be_given_up() -> None:
    controller = controller_of("a", routing=Mute())
    for _ in range(2):
        with pytest.raises(ValueError, match="it must Route, Hold or Reject"):
            arrive(controller, "q")
        assert controller.on(Cancelled(0.0, "q")) == []
    assert controller.state.flights == {}


def test_time_alone_does_nothing_while_nobody_waits() -> None:
    controller = controller_of("a")
    assert controller.next_deadline_s() is None
    assert controller.on(Ticked(1e6)) == []
    arrive(controller, "q")
    assert controller.next_deadline_s() is None
    assert controller.on(Ticked(2e6)) == []

"""Answers that broke off and go on elsewhere, after the tokens that the client has."""

from __future__ import annotations

from millrace.core.event import Dispatch, Failed, Finished, Refuse, Started, Ticked
from tests.unit.control.scripted import arrive, controller_of, counts, join


def broken(tokens: int | None, now_s: float = 2.0) -> Failed:
    return Failed(now_s, "q", "the engine died", replica_down=True, resume_tokens=tokens)


def test_an_answer_that_broke_off_goes_on_elsewhere_after_what_the_client_has() -> None:
    controller = controller_of("a", "b", routing="round_robin")
    (first,) = arrive(controller, "q")
    assert isinstance(first, Dispatch)
    other = "b" if first.replica == "a" else "a"
    controller.on(Started(1.0, "q"))
    assert controller.on(broken(5)) == [Dispatch("q", other, 2, resume_tokens=5)]
    assert counts(controller, other) == (1, 0, 105, 0)
    assert controller.state.flights["q"].request.max_tokens == 11
    controller.on(Started(2.5, "q"))
    assert counts(controller, other) == (0, 1, 0, 105)
    controller.on(Finished(3.0, "q"))
    assert counts(controller, other) == (0, 0, 0, 0)


def test_an_answer_may_break_off_twice_and_counts_its_tokens_once() -> None:
    controller = controller_of("a", "b", "c", routing="least_work")
    arrive(controller, "q")
    controller.on(Started(1.0, "q"))
    controller.on(broken(5))
    controller.on(Started(2.5, "q"))
    (again,) = controller.on(broken(8, now_s=3.0))
    assert isinstance(again, Dispatch)
    assert (again.attempt, again.resume_tokens) == (3, 8)
    request = controller.state.flights["q"].request
    assert (request.prompt_tokens, request.max_tokens) == (108, 8)


def test_an_answer_that_broke_off_again_before_another_token_goes_on_from_where_it_was() -> None:
    controller = controller_of("a", "b", "c", routing="least_work")
    arrive(controller, "q")
    controller.on(Started(1.0, "q"))
    controller.on(broken(5))
    (again,) = controller.on(broken(None, now_s=2.5))
    assert isinstance(again, Dispatch)
    assert again.resume_tokens == 5
    assert controller.state.flights["q"].request.prompt_tokens == 105


def test_an_answer_that_cannot_go_on_ends() -> None:
    controller = controller_of("a", "b")
    arrive(controller, "q")
    controller.on(Started(1.0, "q"))
    assert controller.on(broken(None)) == []
    assert not controller.state.flights


def test_an_answer_goes_on_as_often_as_a_request_may_be_tried() -> None:
    controller = controller_of("a", "b", max_attempts=1)
    arrive(controller, "q")
    controller.on(Started(1.0, "q"))
    (end,) = controller.on(broken(5))
    assert isinstance(end, Refuse)
    assert end.status == 502
    assert not controller.state.flights


def test_an_answer_waits_for_a_replica_and_never_turns_to_another_model() -> None:
    controller = controller_of("a", max_hold_s=10.0)
    join(controller, "other", "ready", "n")
    arrive(controller, "q", fallbacks=("n",))
    controller.on(Started(1.0, "q"))
    assert controller.on(broken(5)) == []
    assert controller.next_deadline_s() == 12.0
    (end,) = controller.on(Ticked(12.0))
    assert isinstance(end, Refuse)
    assert end.status == 503


def test_one_token_at_least_is_left_to_ask_for() -> None:
    controller = controller_of("a", "b")
    arrive(controller, "q")
    controller.on(Started(1.0, "q"))
    controller.on(broken(16))
    assert controller.state.flights["q"].request.max_tokens == 1

"""All retries together are a share of the traffic, with enough in reserve for an engine's sudden death."""

from __future__ import annotations

from millrace.control import Controller, RetryBudget
from millrace.core.event import Action, Dispatch, Failed, Finished, Refuse, Started
from tests.unit.control.scripted import arrive, controller_of, play


def again(actions: list[Action]) -> int:
    """How many of these actions try something again."""
    return sum(isinstance(action, Dispatch) and action.attempt > 1 for action in actions)


def serve(controller: Controller, id: str, now_s: float = 0.0) -> None:
    """Let a request come and be answered."""
    arrive(controller, id, now_s)
    play(controller, Started(now_s, id), Finished(now_s, id))


def fail(controller: Controller, id: str, now_s: float = 0.0) -> list[Action]:
    """Let a request come whose first attempt fails; return what is done about that."""
    arrive(controller, id, now_s)
    return controller.on(Failed(now_s, id, "reset"))


def test_without_a_budget_every_request_is_tried_as_often_as_its_settings_say() -> None:
    controller = controller_of("a", "b")
    assert sum(again(fail(controller, f"q{n}")) for n in range(500)) == 500


def test_a_fleet_of_three_saves_all_that_a_dying_engine_had_not_begun() -> None:
    controller = controller_of("a", "b", "c", retry_budget=RetryBudget())
    sent = [action for n in range(120) for action in arrive(controller, f"q{n}")]
    lost = [a.request_id for a in sent if isinstance(a, Dispatch) and a.replica == "b"]
    assert len(lost) == 40
    saved = play(controller, *(Failed(1.0, lost_id, "reset", replica_down=True) for lost_id in lost))
    assert again(saved) == len(saved) == 40


def test_a_busy_fleet_saves_a_tenth_of_what_is_in_flight() -> None:
    names = [f"r{n}" for n in range(10)]
    controller = controller_of(*names, routing="round_robin", retry_budget=RetryBudget())
    sent = [action for n in range(4000) for action in arrive(controller, f"q{n}")]
    lost = [a.request_id for a in sent if isinstance(a, Dispatch) and a.replica == "r0"]
    saved = play(controller, *(Failed(0.0, lost_id, "reset", replica_down=True) for lost_id in lost))
    assert again(saved) == len(lost) == 400


def test_a_spent_budget_ends_a_request_and_says_so() -> None:
    controller = controller_of("a", "b", retry_budget=RetryBudget(ratio=0.0, reserve=1, floor_per_s=0.0))
    assert again(fail(controller, "q0")) == 1
    (refused,) = fail(controller, "q1")
    why = "no replica could answer: reset; too much was tried again already"
    assert refused == Refuse("q1", why, 503, retry_after_s=30.0)
    assert controller.state.flights.keys() == {"q0"}


def test_a_spent_budget_is_earned_again_by_what_arrives() -> None:
    controller = controller_of("a", "b", retry_budget=RetryBudget(ratio=0.25, reserve=1, floor_per_s=0.0))
    assert [again(fail(controller, f"q{n}")) for n in range(8)] == [1, 0, 0, 1, 0, 0, 0, 1]


def test_a_spent_budget_is_earned_again_as_time_passes() -> None:
    controller = controller_of("a", "b", retry_budget=RetryBudget(ratio=0.0, reserve=1, floor_per_s=0.5))
    assert [again(fail(controller, f"q{n}", float(n))) for n in range(5)] == [1, 0, 1, 0, 1]


def test_no_more_is_saved_than_the_reserve() -> None:
    controller = controller_of("a", "b", retry_budget=RetryBudget(ratio=0.0, reserve=2, floor_per_s=1.0))
    fail(controller, "early", 0.0)
    for n in range(100):
        serve(controller, f"served {n}", float(n))
    assert [again(fail(controller, f"q{n}", 100.0)) for n in range(4)] == [1, 1, 0, 0]


def test_engines_that_always_fail_get_a_tenth_more_traffic() -> None:
    budget = RetryBudget(reserve=10, floor_per_s=0.0)
    controller = controller_of("a", "b", "c", retry_budget=budget)
    attempts = 0
    for n in range(1000):
        actions = arrive(controller, f"q{n}")
        while any(isinstance(action, Dispatch) for action in actions):
            attempts += 1
            actions = controller.on(Failed(0.0, f"q{n}", "status 503"))
    assert 1000 + 100 <= attempts <= 1000 + 100 + 10


def test_what_would_end_anyway_costs_the_budget_nothing() -> None:
    controller = controller_of("a", "b", retry_budget=RetryBudget(ratio=0.0, reserve=1, floor_per_s=0.0))
    arrive(controller, "hopeless")
    controller.on(Failed(0.0, "hopeless", "bad prompt", retryable=False))
    arrive(controller, "begun")
    play(controller, Started(0.0, "begun"), Failed(0.0, "begun", "reset"))
    assert again(fail(controller, "q")) == 1

"""A request may name models to turn to; each is tried in its turn, and the log says which one answered."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from millrace.control import Controller, QueueSettings, RetryBudget, Saturation
from millrace.control.log import entry, header, replay
from millrace.core.event import Action, Arrived, Dispatch, Event, Failed, Finished, Refuse, Reported, Ticked
from millrace.core.fleet import Decision, FleetView, Reject, Route
from millrace.core.replica import Report
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.control.scripted import Capped, arrive, controller_of, join, play


def of(action: Action) -> tuple[str, Any]:
    """Where a dispatch goes and for which fallback."""
    assert isinstance(action, Dispatch)
    return action.replica, action.model


def two_models(*, m: Any = "ready", n: Any = "ready", **settings: Any) -> Controller:
    """A controller with one replica for each of two models."""
    controller = controller_of(**settings)
    join(controller, "a", m, "m")
    join(controller, "b", n, "n")
    return controller


class OnlyN:
    """Sends requests for "n" to "b" and wants no others."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route("b") if request.model == "n" else Reject("not for me", 429)


def test_the_model_asked_for_comes_first() -> None:
    (sent,) = arrive(two_models(), "q", fallbacks=("n",))
    assert of(sent) == ("a", UNSET)


def test_a_model_without_a_ready_replica_is_passed_over() -> None:
    (sent,) = arrive(two_models(m="starting"), "q", fallbacks=("absent", "n"))
    assert of(sent) == ("b", "n")


def test_a_model_that_does_not_exist_may_have_fallbacks() -> None:
    controller = two_models()
    (sent,) = arrive(controller, "q", model="absent", fallbacks=("n",))
    assert of(sent) == ("b", "n")
    (refused,) = arrive(controller, "q2", model="absent", fallbacks=("absent too",))
    assert refused == Refuse("q2", "the model 'absent' does not exist", 404)


def test_nobody_ready_means_waiting_for_the_first_that_exists() -> None:
    controller = two_models(m="starting", n="starting")
    assert arrive(controller, "q", model="absent", fallbacks=("m", "n")) == []
    assert list(controller.state.held) == ["m"]
    assert list(map(of, controller.on(Reported(1.0, "a", "ready")))) == [("a", "m")]


def test_a_full_queue_makes_a_request_turn_to_a_fallback() -> None:
    controller = two_models(routing=Capped(most=1), max_held=1)
    arrive(controller, "q0")
    assert arrive(controller, "q1") == []
    (sent,) = arrive(controller, "q2", fallbacks=("n",))
    assert of(sent) == ("b", "n")
    arrive(controller, "q3", model="n")
    (refused,) = arrive(controller, "q4", fallbacks=("n",))
    assert isinstance(refused, Refuse)
    assert refused.status == 429


def test_a_policy_that_rejects_leaves_the_fallbacks() -> None:
    controller = two_models(routing=OnlyN())
    (sent,) = arrive(controller, "q", fallbacks=("n",))
    assert of(sent) == ("b", "n")
    assert arrive(controller, "q2") == [Refuse("q2", "not for me", 429)]


def test_failed_attempts_lead_to_a_fallback_which_has_attempts_of_its_own() -> None:
    controller = two_models(max_attempts=2)
    actions = arrive(controller, "q", fallbacks=("n",))
    actions += play(controller, *(Failed(float(n), "q", "reset") for n in range(4)))
    assert actions == [
        Dispatch("q", "a", 1),
        Dispatch("q", "a", 2),
        Dispatch("q", "b", 3, "n"),
        Dispatch("q", "b", 4, "n"),
        Refuse("q", "no replica could answer: reset", 502),
    ]


def test_a_model_that_died_is_not_waited_for_while_a_fallback_is_ready() -> None:
    controller = two_models()
    arrive(controller, "q", fallbacks=("n",))
    arrive(controller, "no fallback")
    (sent,) = controller.on(Failed(1.0, "q", "reset", replica_down=True))
    assert of(sent) == ("b", "n")
    assert controller.on(Failed(1.0, "no fallback", "reset", replica_down=True)) == []


def test_without_a_ready_fallback_a_dead_model_is_waited_for() -> None:
    controller = two_models(n="starting")
    arrive(controller, "q", fallbacks=("n",))
    assert controller.on(Failed(1.0, "q", "reset", replica_down=True)) == []
    assert list(controller.state.held) == ["m"]


def test_who_waits_turns_to_a_fallback_as_soon_as_it_is_ready() -> None:
    controller = two_models(m="starting", n="starting", max_held=3, routing=Capped(most=1))
    arrive(controller, "q0", fallbacks=("absent", "n"))
    arrive(controller, "no fallback")
    arrive(controller, "q1", fallbacks=("n",))
    assert list(map(of, controller.on(Reported(1.0, "b", "ready")))) == [("b", "n")]
    assert {model: list(queue) for model, queue in controller.state.held.items()} == {
        "m": ["no fallback"],
        "n": ["q1"],
    }
    assert list(map(of, controller.on(Finished(2.0, "q0")))) == [("b", "n")]
    assert controller.on(Reported(3.0, "b", "ready")) == []
    assert list(map(of, controller.on(Reported(4.0, "a", "ready")))) == [("a", UNSET)]


def test_no_more_turn_to_a_fallback_than_may_wait_for_it() -> None:
    controller = two_models(m="starting", n="starting", max_held=2, routing=Capped(most=1))
    arrive(controller, "n0", model="n")
    for name in ("q0", "q1"):
        arrive(controller, name, fallbacks=("n",))
    arrive(controller, "n1", model="n")
    assert list(map(of, controller.on(Reported(1.0, "b", "ready")))) == [("b", UNSET)]
    assert {model: list(queue) for model, queue in controller.state.held.items()} == {
        "m": ["q0", "q1"],
        "n": ["n1"],
    }


def test_who_waits_for_a_busy_model_turns_to_a_fallback_when_it_dies() -> None:
    controller = two_models(routing=Capped(most=1))
    arrive(controller, "first")
    assert arrive(controller, "q", fallbacks=("n",)) == []
    assert list(map(of, controller.on(Failed(1.0, "first", "reset", replica_down=True)))) == [("b", "n")]
    assert list(controller.state.held["m"]) == ["first"]


def test_a_fallback_after_a_failure_costs_the_retry_budget() -> None:
    budget = RetryBudget(ratio=0.0, reserve=0, floor_per_s=0.0)
    controller = two_models(max_attempts=1, retry_budget=budget)
    arrive(controller, "q", fallbacks=("n",))
    (refused,) = controller.on(Failed(1.0, "q", "reset"))
    assert isinstance(refused, Refuse)
    assert refused.status == 503


def test_a_wait_that_was_too_long_ends_at_a_fallback() -> None:
    controller = two_models(routing=Capped(most=1), max_hold_s=5.0)
    arrive(controller, "first")
    arrive(controller, "q", fallbacks=("n",))
    arrive(controller, "no fallback", 0.5)
    assert controller.on(Reported(1.0, "b", "ready")) == []
    (sent,) = controller.on(Ticked(5.0))
    assert of(sent) == ("b", "n")
    (refused,) = controller.on(Ticked(5.5))
    assert isinstance(refused, Refuse)


def test_a_deadline_that_passed_ends_a_request_whatever_its_fallbacks() -> None:
    controller = two_models(routing=Capped(most=1))
    arrive(controller, "first")
    arrive(controller, "q", fallbacks=("n",), deadline_s=2.0)
    (refused,) = controller.on(Ticked(2.0))
    assert isinstance(refused, Refuse)
    assert refused.status == 504


def test_the_chain_is_walked_in_order_and_never_back() -> None:
    controller = controller_of(max_attempts=1)
    for model in "mno":
        join(controller, f"for {model}", "ready", model)
    actions = arrive(controller, "q", fallbacks=("n", "o"))
    actions += play(controller, *(Failed(0.0, "q", "reset") for _ in range(3)))
    assert [a.replica for a in actions if isinstance(a, Dispatch)] == ["for m", "for n", "for o"]
    assert isinstance(actions[-1], Refuse)


def test_what_a_fallback_answered_is_counted_for_it() -> None:
    controller = two_models(m="starting")
    arrive(controller, "q", fallbacks=("n",))
    controller.on(Finished(1.0, "q"))
    assert controller.state.routed == {"n": 1}
    assert controller.state.flights == {}


def test_long_queues_whose_requests_expire_at_once_may_fall_back_on_each_other() -> None:
    controller, most = two_models(routing=Capped(0), queueing=load("queueing", "drr"), max_hold_s=5.0), 600
    for n in range(most):
        model, other = ("m", "n") if n % 2 else ("n", "m")
        assert arrive(controller, f"q{n}", model=model, fallbacks=(other,), tenant=f"t{n}") == []
    assert controller.on(Ticked(6.0)) == []
    assert {name: len(queue) for name, queue in controller.state.held.items()} == dict.fromkeys(
        "mn", most // 2
    )
    refused = controller.on(Ticked(12.0))
    assert {one.request_id for one in refused} == {f"q{n}" for n in range(most)}
    assert len(refused) == most
    assert not controller.state.flights


def test_who_is_shed_turns_to_a_fallback_that_is_not_saturated() -> None:
    controller = two_models(queue=QueueSettings(saturation=Saturation()))
    controller.on(Reported(0.0, "b", "ready", report=Report(now_s=0.0, waiting=0)))
    (refused,) = arrive(controller, "q1", priority=-1)
    assert isinstance(refused, Refuse)
    (sent,) = arrive(controller, "q2", priority=-1, fallbacks=("n",))
    assert of(sent) == ("b", "n")
    assert arrive(controller, "q3", priority=0) == []
    (sent,) = arrive(controller, "q4", priority=-1, fallbacks=("n",))  # behind a queue, too
    assert of(sent) == ("b", "n")
    assert set(controller.state.flights) == {"q2", "q3", "q4"}


def test_a_log_says_nothing_of_fallbacks_where_there_are_none() -> None:
    arrived = Arrived(0.0, fakes.request("q"))
    assert b"fallback" not in entry(arrived, [])
    assert b"model" not in entry(Ticked(0.0), [Dispatch("q", "a")])


def test_a_log_with_fallbacks_replays() -> None:
    controller = two_models(m="starting", max_attempts=1)
    log = [header(controller)]
    events: list[Event] = [
        Reported(0.0, "a", "starting", controller.state.replicas["a"].spec),
        Reported(0.0, "b", "ready", controller.state.replicas["b"].spec),
        Arrived(0.0, fakes.request("q", fallbacks=("n",))),
        Failed(1.0, "q", "reset"),
    ]
    log += [entry(event, controller.on(event)) for event in events]
    found = replay(log)
    assert found.identical == found.actions == 2

"""Requests that a migration policy moves: what is booked, who is told, and what is no move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from millrace.control import Controller, ControlSettings
from millrace.control.log import controller_of as rebuilt
from millrace.control.log import header, read_header
from millrace.core.event import (
    Cancel,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Move,
    Moved,
    Prefilled,
    Reported,
    Started,
    Ticked,
)
from millrace.core.fleet import Decision, FleetView, Hold, Route, RoutingPolicy, Sent, Shift
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from tests.unit.control.scripted import Capped, Insists, Picky, arrive, counts, join
from tests.unit.control.test_handing_over import SPLITS


@dataclass
class Moves:
    """Wants these moves the next time it is asked, and remembers what it is told."""

    period_s: float = 1.0
    wanted: list[Shift] = field(default_factory=list, init=False)
    told: list[Event | Sent] = field(default_factory=list, init=False)

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        while self.wanted:
            yield self.wanted.pop(0)

    def note(self, fact: Event | Sent) -> None:
        self.told.append(fact)


def moving(policy: Moves, *ready: str, routing: RoutingPolicy | None = None, **settings: Any) -> Controller:
    """Return a controller that sends everything to the first of these replicas, unless told otherwise."""
    sends, limits = routing or Insists(ready[0]), ControlSettings(**settings)
    made = Controller(sends, load("queueing", "fcfs"), limits, migration=policy)
    for name in ready:
        join(made, name)
    return made


def ask(controller: Controller, policy: Moves, *wanted: Shift, now_s: float = 1.0) -> object:
    policy.wanted = list(wanted)
    return controller.on(Ticked(now_s))


def test_the_policy_is_asked_every_period_while_requests_are_under_way() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    assert controller.next_deadline_s() is None
    arrive(controller, "q", 10.0)
    assert controller.next_deadline_s() == 11.0
    assert ask(controller, policy, Shift("q", "b"), now_s=10.5) == []
    assert controller.on(Ticked(11.0)) == [Move("q", "a", "b")]
    assert controller.next_deadline_s() == 12.0
    controller.on(Started(11.5, "q"))
    controller.on(Finished(12.5, "q"))
    assert controller.next_deadline_s() is None


def test_a_held_request_that_expires_before_the_next_question_is_due_first() -> None:
    policy = Moves(period_s=60.0)
    controller = moving(policy, "a", routing=Capped())
    arrive(controller, "q0")
    assert controller.next_deadline_s() == 60.0
    arrive(controller, "q1")
    assert controller.next_deadline_s() == 30.0


def test_a_request_without_a_first_token_is_taken_from_one_queue_into_the_other() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    arrive(controller, "q")
    assert ask(controller, policy, Shift("q", "b")) == [Move("q", "a", "b")]
    assert counts(controller, "a") == (0, 0, 0, 0)
    assert counts(controller, "b") == (1, 0, 100, 0)
    controller.on(Started(2.0, "q"))
    assert counts(controller, "b") == (0, 1, 0, 100)


def test_a_move_is_no_attempt_that_failed() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b", max_attempts=2)
    arrive(controller, "q")
    ask(controller, policy, Shift("q", "b"))
    assert controller.on(Failed(2.0, "q", "broke")) == [Dispatch("q", "a", 3)]


def test_what_leaves_makes_room_for_what_is_held() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b", routing=Capped())
    for number in range(3):
        arrive(controller, f"q{number}")
    assert ask(controller, policy, Shift("q0", "b")) == [Move("q0", "a", "b"), Dispatch("q2", "a")]


def test_a_running_request_stays_where_it_is_until_its_cache_has_moved() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    arrive(controller, "q")
    controller.on(Started(0.5, "q"))
    assert ask(controller, policy, Shift("q", "b")) == [Move("q", "a", "b", running=True)]
    assert counts(controller, "a") == (0, 1, 0, 100)
    assert controller.state.replicas["b"].coming_tokens == 100
    controller.on(Moved(2.0, "q", "b"))
    assert counts(controller, "a") == (0, 0, 0, 0)
    assert counts(controller, "b") == (0, 1, 0, 100)
    assert controller.state.replicas["b"].coming_tokens == 0
    assert controller.on(Cancelled(3.0, "q")) == [Cancel("q", "b")]


@dataclass(frozen=True)
class OnlyA:
    """Sends to `a`, one at a time."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Hold("busy") if fleet.able(request)[0].in_flight else Route("a")


def test_who_has_moved_makes_room_for_what_is_held() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b", routing=OnlyA())
    for number in range(2):
        arrive(controller, f"q{number}")
    controller.on(Started(0.5, "q0"))
    ask(controller, policy, Shift("q0", "b"))
    assert controller.on(Moved(2.0, "q0", "b")) == [Dispatch("q1", "a")]


def test_a_move_that_fails_leaves_everything_as_it_was() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    arrive(controller, "q")
    controller.on(Started(0.5, "q"))
    ask(controller, policy, Shift("q", "b"))
    controller.on(Moved(2.0, "q", "a"))
    assert counts(controller, "a") == (0, 1, 0, 100)
    assert counts(controller, "b") == (0, 0, 0, 0)
    assert controller.state.replicas["b"].coming_tokens == 0


@pytest.mark.parametrize("end", [Finished(2.0, "q"), Failed(2.0, "q", "broke"), Cancelled(2.0, "q")])
def test_a_request_that_ends_on_its_way_leaves_nothing_behind(end: Event) -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    arrive(controller, "q")
    controller.on(Started(0.5, "q"))
    ask(controller, policy, Shift("q", "b"))
    controller.on(end)
    assert controller.on(Moved(2.5, "q", "b")) == []
    assert counts(controller, "a") == counts(controller, "b") == (0, 0, 0, 0)
    assert controller.state.replicas["b"].coming_tokens == 0


def test_nobody_moves_without_a_migration_policy() -> None:
    controller = Controller(Insists("a"), load("queueing", "fcfs"))
    join(controller, "a")
    arrive(controller, "q")
    assert controller.on(Moved(1.0, "q", "b")) == []
    assert counts(controller, "a") == (1, 0, 100, 0)


def test_a_learning_policy_is_told_of_every_event_before_it_counts_and_of_what_is_sent() -> None:
    policy = Moves()
    controller = moving(policy, "a", "b")
    policy.told.clear()
    arrive(controller, "q", 1.0)
    request = controller.state.flights["q"].request
    assert policy.told[-1] == Sent(1.0, request, "a", queued_tokens=100)
    assert len(policy.told) == 2
    ask(controller, policy, Shift("q", "b"), now_s=2.0)
    assert policy.told[2:] == [Ticked(2.0), Sent(2.0, request, "b", moved=True, queued_tokens=100)]


@pytest.mark.parametrize(
    ("shift", "complaint"),
    [
        (Shift("x", "b"), "moves 'x', which was not sent anywhere"),
        (Shift("held", "b"), "moves 'held', which was not sent anywhere"),
        (Shift("q", "a"), "moves 'q' to 'a', where it is"),
        (Shift("q", "x"), "moves to 'x', which is no ready replica of 'm'"),
        (Shift("q", "gone"), "moves to 'gone', which is no ready replica of 'm'"),
        (Shift("q", "prefill"), "moves to 'prefill', which is no ready replica of 'm'"),
        (Shift("on its way", "c"), "moves 'on its way', whose KV cache is moving already"),
    ],
)
def test_a_move_that_cannot_be_made_is_refused(shift: Shift, complaint: str) -> None:
    policy = Moves()
    controller = moving(policy, "a", "b", "c", routing=Picky())
    join(controller, "gone", "gone")
    controller.on(Reported(0.0, "prefill", "ready", ReplicaSpec(models=("m",), role="prefill")))
    for name in ("on its way", "q"):
        arrive(controller, name)
    controller.on(Started(0.5, "on its way"))
    ask(controller, policy, Shift("on its way", "b"))
    arrive(controller, "held", prompt_tokens=101)
    with pytest.raises(ValueError, match=complaint):
        ask(controller, policy, shift, now_s=3.0)


def test_a_request_whose_prompt_is_computed_elsewhere_is_not_moved() -> None:
    policy = Moves()
    controller = moving(policy, "d", "e", routing=SPLITS)
    controller.on(Reported(0.0, "p", "ready", ReplicaSpec(models=("m",), role="prefill")))
    arrive(controller, "q")
    with pytest.raises(ValueError, match="whose KV cache is moving already"):
        ask(controller, policy, Shift("q", "e"))
    controller.on(Prefilled(1.5, "q"))
    assert ask(controller, policy, Shift("q", "e"), now_s=3.0) == [Move("q", "d", "e")]


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ValueError, match="period_s is 0"):
        moving(Moves(period_s=0), "a")


def test_a_log_names_the_migration_policy() -> None:
    controller = moving(Moves(period_s=2.0), "a", routing=load("routing", "least_work"))
    again = rebuilt(read_header(header(controller)))
    assert again.migration == Moves(period_s=2.0)

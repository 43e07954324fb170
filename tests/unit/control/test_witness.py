"""Who looks on sees every decision as it was taken; scores on record leave decisions alone."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from millrace.control import Controller, ControlSettings
from millrace.control.log import entry, header, replay
from millrace.core.event import Arrived, Dispatch, Event, Failed, Reported
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.control.hindsight.logs import arrived, joined, log_of
from tests.unit.control.scripted import Insists

EVENTS: list[Event] = [*joined("a", "b"), arrived(1.0, "q"), Failed(2.0, "q", "reset"), arrived(3.0, "r")]


class Scribe:
    """Writes down what it is told, with the loads that it sees."""

    def __init__(self) -> None:
        self.facts: list[Event | Sent] = []
        self.seen: list[tuple[str, Decision, list[int]]] = []

    def note(self, fact: Event | Sent) -> None:
        self.facts.append(fact)

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        self.seen.append((request.id, decision, [one.waiting for one in fleet.able(request)]))


def controller(routing: Any, witness: Scribe | None = None, **settings: Any) -> Controller:
    return Controller(routing, load("queueing", "fcfs"), ControlSettings(**settings), witness=witness)


def test_a_witness_sees_the_fleet_as_the_policy_saw_it() -> None:
    scribe = Scribe()
    made = controller(Insists("a"), scribe)
    for event in EVENTS[:3]:
        made.on(event)
    assert scribe.seen == [("q", Route("a"), [0, 0])]
    assert [type(fact) for fact in scribe.facts] == [Reported, Reported, Arrived, Sent]


def test_a_witness_sees_what_is_held_too() -> None:
    scribe = Scribe()
    made = controller(load("routing", "random"), scribe)
    made.on(Reported(0.0, "a", "starting", fakes.replica("a").spec))
    made.on(arrived(1.0, "q"))
    assert [decision for _, decision, _ in scribe.seen] == [Hold("no ready replica")]


def test_scores_on_record_change_no_decision_and_replay() -> None:
    plain, scored = log_of(EVENTS), log_of(EVENTS, log_scores=True)
    assert replay(scored).first_difference is None
    assert b"reasons" not in b"".join(plain)
    assert b"".join(scored).count(b'"reasons"') == 3


def test_reasons_are_those_of_the_moment_of_the_decision() -> None:
    made = controller(load("routing", "least_work"), log_scores=True)
    actions = [action for event in EVENTS for action in made.on(event)]
    dispatches = [action for action in actions if isinstance(action, Dispatch)]
    first, again, _ = [one.reasons for one in dispatches if one.reasons is not UNSET]
    assert [(one.place, one.ttft_s) for one in first.weighed] == [(1, 1.0), (1, 1.0)]
    assert len(again.weighed) == 1  # the one that failed is to be avoided


def test_a_policy_without_words_leaves_an_empty_reason() -> None:
    made = controller(Insists("a"), log_scores=True)
    lines = [header(controller(load("routing", "random")))]
    lines += [entry(event, made.on(event)) for event in EVENTS[:3]]
    assert lines[-1].endswith(b'"attempt":1,"reasons":{}}]}\n')


def test_a_view_can_be_had_to_ask_about_a_request() -> None:
    made = controller(load("routing", "least_work"))
    for event in EVENTS:
        made.on(event)
    view = made.view(9.0, "m")
    assert (view.now_s, view.routed, len(view.replicas)) == (9.0, 3, 2)


def test_replicas_that_were_not_to_be_asked_are_not_weighed_either() -> None:
    events = [*joined("a", "b"), *(arrived(1.0, f"q{n}") for n in range(2))]
    log = log_of(events, log_scores=True, max_waiting=1)
    assert replay(log).first_difference is None
    made = controller(load("routing", "least_work"), log_scores=True, max_waiting=1)
    told = [action.reasons for event in events for action in made.on(event) if isinstance(action, Dispatch)]
    assert [len(one.weighed) for one in told if one is not UNSET] == [2, 1]

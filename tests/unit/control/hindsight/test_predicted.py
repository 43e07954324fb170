"""Predictions are held against what came of them."""

from __future__ import annotations

import pytest

from millrace.control.hindsight import report
from millrace.control.hindsight.predicted import Prophet, Sample, errors
from millrace.core.event import Arrived, Cancelled, Event, Failed, Finished, Started
from millrace.core.fleet import Route, Sent
from millrace.core.replica import ReplicaSpec
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.control.hindsight.logs import arrived, joined, log_of

HISTORY: list[Event] = [
    *joined("a", "b"),
    arrived(1.0, "q1"),
    Started(2.5, "q1"),
    arrived(3.0, "q2"),
    Started(3.5, "q2"),
    Started(3.6, "nobody"),
    Finished(4.0, "q2"),
]


@pytest.mark.parametrize(("scores", "scored"), [(False, 0), (True, 2)])
def test_errors_are_of_what_was_predicted_whether_it_is_on_record_or_not(scores: bool, scored: int) -> None:
    settings = {"log_scores": True} if scores else {}
    found = report(log_of(HISTORY, **settings))
    assert (found.scored, found.policy.policy, found.first_difference) == (scored, "least_work", None)
    everybody = found.by_policy[-1]
    assert (everybody.replica, everybody.requests) == ("all", 2)
    assert (everybody.actual_s, everybody.predicted_s) == (1.0, 1.0)
    assert (everybody.bias_s, everybody.absolute_s) == (0.0, 0.5)
    assert found.by_forecast[-1].requests == 2


def test_what_is_on_record_wins() -> None:
    log = log_of(HISTORY, log_scores=True)
    log = [line.replace(b'"ttft_s":1.0', b'"ttft_s":1.5') for line in log]
    assert report(log).by_policy[-1].predicted_s == 1.5
    assert report(log).first_difference == 4


def test_a_policy_that_predicts_nothing_leaves_the_forecast() -> None:
    found = report(log_of(HISTORY, "random", log_scores=True))
    assert (found.by_policy, found.scored) == ((), 0)
    assert found.by_forecast


def test_a_request_that_got_no_first_token_where_it_was_sent_is_left_out() -> None:
    events: list[Event] = [
        *joined("a", "b"),
        *(arrived(1.0, f"q{n}") for n in range(4)),
        Failed(1.5, "q0", "reset"),
        Cancelled(1.5, "q1"),
        Finished(1.5, "q2"),
        *(Started(2.0, f"q{n}") for n in range(4)),
    ]
    assert report(log_of(events)).by_forecast[-1].requests == 2  # the second attempt of q0, and q3


def test_prompts_that_are_computed_elsewhere_are_left_out() -> None:
    prefill, decode = (ReplicaSpec(models=("m",), role=role) for role in ("prefill", "decode"))
    events = [
        *joined("p", spec=prefill),
        *joined("d", spec=decode),
        Arrived(1.0, fakes.request("q", prompt_tokens=5000)),
    ]
    assert report(log_of([*events, Started(2.0, "q")], "disaggregated", log_scores=True)).by_forecast == ()


def test_errors_are_told_by_replica_and_for_all() -> None:
    assert errors([]) == ()
    first, second, everybody = errors([Sample("b", 1.0, 2.0), Sample("a", 1.0, 0.5), Sample("b", 1.0, 4.0)])
    assert (first.replica, second.replica, everybody.replica) == ("a", "b", "all")
    assert (first.bias_s, first.absolute_s) == (-0.5, 0.5)
    assert (second.requests, second.bias_s, second.p50_s) == (2, 2.0, 2.0)
    assert everybody.absolute_s == 1.5


def test_a_policy_that_learns_hears_what_happens() -> None:
    found = report(log_of(HISTORY, "millrace"))
    assert found.by_policy == found.by_forecast


def test_a_request_that_moved_is_left_out() -> None:
    prophet = Prophet(load("routing", "least_work"))
    request, fleet = fakes.request("q"), fakes.fleet(fakes.replica("a"), fakes.replica("b"))
    prophet.decided(request, fleet, Route("a"))
    prophet.note(Sent(1.0, request, "a"))
    assert list(prophet.open) == ["q"]
    prophet.note(Sent(2.0, request, "b", moved=True))
    assert not prophet.open

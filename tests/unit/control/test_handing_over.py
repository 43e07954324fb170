"""A prompt that is computed for another replica: who is charged for it, who is told, and who failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.event import (
    Cancel,
    Cancelled,
    Dispatch,
    Failed,
    Finished,
    Prefilled,
    Refuse,
    Reported,
    Started,
)
from millrace.core.fleet import Decision, FleetView, Route, RoutingPolicy
from millrace.core.replica import ReplicaSpec, Role
from millrace.core.request import Media, Request
from millrace.testing import fakes
from tests.unit.control.scripted import arrive, controller_of, counts


@dataclass(frozen=True)
class Splits:
    """Lets the first that may prefill do so for the first that may answer."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        prefilling = fleet.prefilling(request)
        return Route(fleet.able(request)[0].id, prefill_on=prefilling[0].id if prefilling else None)


SPLITS = Splits()


@dataclass(frozen=True)
class Picks:
    """Always names these two."""

    replica: str
    prefill_on: str | None = None

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route(self.replica, prefill_on=self.prefill_on)


def split(routing: RoutingPolicy = SPLITS, **settings: Any) -> Controller:
    """A fleet of two that prefill, p and q, and two that answer, d and e."""
    made = controller_of(routing=routing, **settings)
    roles: dict[str, Role] = {"p": "prefill", "q": "prefill", "d": "decode", "e": "decode"}
    for name, role in roles.items():
        made.on(Reported(0.0, name, "ready", ReplicaSpec(models=("m",), role=role)))
    return made


def coming(controller: Controller, replica: str) -> int:
    return controller.state.replicas[replica].coming_tokens


def test_a_prompt_is_charged_to_who_computes_it_and_then_the_request_to_who_answers() -> None:
    controller = split()
    assert arrive(controller, "q0") == [Dispatch("q0", "d", 1, prefill_on="p")]
    assert (counts(controller, "p"), counts(controller, "d")) == ((1, 0, 100, 0), (0, 0, 0, 0))
    assert coming(controller, "d") == 100
    assert controller.on(Prefilled(1.0, "q0")) == []
    assert (counts(controller, "p"), counts(controller, "d")) == ((0, 0, 0, 0), (1, 0, 0, 0))
    assert coming(controller, "d") == 0
    controller.on(Started(2.0, "q0"))
    assert counts(controller, "d") == (0, 1, 0, 100)
    controller.on(Finished(3.0, "q0"))
    assert counts(controller, "d") == (0, 0, 0, 0)
    assert not controller.state.flights


def test_both_are_believed_to_hold_the_prompt_afterwards() -> None:
    controller = split()
    arrive(controller, "q0", blocks=(1, 2, 3))
    prompt = fakes.request("other", blocks=(1, 2, 3))
    views = controller.state.replicas
    assert [views[name].prefix.matched_tokens(prompt) for name in "pd"] == [48, 0]
    controller.on(Prefilled(1.0, "q0"))
    assert [views[name].prefix.matched_tokens(prompt) for name in "pd"] == [48, 48]


def test_a_prompt_is_computed_once() -> None:
    controller = split()
    arrive(controller, "q0")
    for _ in range(2):
        controller.on(Prefilled(1.0, "q0"))
        controller.on(Prefilled(1.0, "nobody"))
    assert counts(controller, "d") == (1, 0, 0, 0)


def test_a_cancellation_goes_to_who_is_at_work() -> None:
    controller = split()
    arrive(controller, "q0")
    arrive(controller, "q1")
    controller.on(Prefilled(1.0, "q1"))
    assert controller.on(Cancelled(2.0, "q0")) == [Cancel("q0", "p")]
    assert controller.on(Cancelled(2.0, "q1")) == [Cancel("q1", "d")]
    assert all(counts(controller, name) == (0, 0, 0, 0) for name in "pqde")
    assert coming(controller, "d") == 0


def test_the_one_that_failed_is_the_one_that_is_gone_and_avoided() -> None:
    controller = split()
    arrive(controller, "q0")
    again = controller.on(Failed(1.0, "q0", "it died", replica_down=True))
    assert again == [Dispatch("q0", "d", 2, prefill_on="q")]
    assert controller.state.replicas["p"].phase == "gone"
    controller.on(Prefilled(2.0, "q0"))
    again = controller.on(Failed(3.0, "q0", "it died", replica_down=True, replica="q"))
    assert again == [Dispatch("q0", "d", 3)]
    phases = [controller.state.replicas[name].phase for name in "pqde"]
    assert phases == ["gone", "gone", "ready", "ready"]


def test_who_answers_may_fail_while_the_cache_comes() -> None:
    controller = split()
    arrive(controller, "q0")
    controller.on(Prefilled(1.0, "q0"))
    again = controller.on(Failed(2.0, "q0", "it died", replica_down=True, replica="d"))
    assert again == [Dispatch("q0", "e", 2, prefill_on="p")]
    assert coming(controller, "e") == 100


def test_attempts_are_counted_whoever_breaks_them() -> None:
    controller = split(max_attempts=1)
    arrive(controller, "q0")
    answer = controller.on(Failed(1.0, "q0", "it broke"))
    assert isinstance(answer[0], Refuse)
    assert counts(controller, "p") == (0, 0, 0, 0)
    assert coming(controller, "d") == 0


def test_whoever_only_prefills_answers_nobody() -> None:
    controller = controller_of(routing="least_work")
    controller.on(Reported(0.0, "p", "ready", ReplicaSpec(models=("m",), role="prefill")))
    assert arrive(controller, "q0") == []
    assert not controller.state.takes(fakes.request())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Picks("p"), "chose 'p', which is no ready replica"),
        (Picks("d", "e"), "prefills on 'e', which does so for nobody"),
        (Picks("b", "b"), "prefills on 'b', which does so for nobody"),
        (Picks("d", "nobody"), "prefills on 'nobody'"),
    ],
)
def test_an_answer_that_cannot_be_carried_out_is_refused(answer: Picks, complaint: str) -> None:
    controller = split(answer)
    controller.on(Reported(0.0, "b", "ready", ReplicaSpec(models=("m",))))
    with pytest.raises(ValueError, match=complaint):
        arrive(controller, "q0")


def test_whoever_does_both_may_compute_a_prompt_for_others() -> None:
    controller = split(Picks("d", "b"))
    controller.on(Reported(0.0, "b", "ready", ReplicaSpec(models=("m",))))
    assert arrive(controller, "q0") == [Dispatch("q0", "d", 1, prefill_on="b")]
    assert counts(controller, "b") == (1, 0, 100, 0)


def test_a_first_token_says_that_the_prompt_is_computed() -> None:
    controller = split()
    arrive(controller, "q0")
    controller.on(Started(1.0, "q0"))
    assert (counts(controller, "p"), counts(controller, "d")) == ((0, 0, 0, 0), (0, 1, 0, 100))
    assert coming(controller, "d") == 0
    controller.on(Prefilled(2.0, "q0"))
    assert counts(controller, "d") == (0, 1, 0, 100)


def test_an_encoder_is_charged_for_media_and_the_prompt_is_queued_where_it_is_answered() -> None:
    controller = split(Picks("d", "x"))
    controller.on(Reported(0.0, "x", "ready", ReplicaSpec(models=("m",), role="encode")))
    image = Media("image", 1, 30)
    assert arrive(controller, "q0", media=(image,)) == [Dispatch("q0", "d", 1, prefill_on="x")]
    assert (counts(controller, "x"), coming(controller, "d")) == ((1, 0, 30, 0), 100)
    controller.on(Prefilled(1.0, "q0"))
    assert (counts(controller, "x"), counts(controller, "d")) == ((0, 0, 0, 0), (1, 0, 100, 0))
    controller.on(Started(2.0, "q0"))
    assert counts(controller, "d") == (0, 1, 0, 100)
    with pytest.raises(ValueError, match="prefills on 'x', which does so for nobody"):
        arrive(controller, "q1")

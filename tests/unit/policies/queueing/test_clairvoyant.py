"""Predicted shortest first: corrected by what comes of it, watched, and never for ever."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control.flight import Flight
from millrace.core.answer_length import LengthPrediction
from millrace.core.event import Arrived, Cancelled, Failed, Finished
from millrace.core.fleet import FleetView, Sent
from millrace.core.request import Request
from millrace.policies.queueing.clairvoyant import MOST_TENANTS, Policy
from millrace.testing import fakes

FLEET = fakes.fleet()


def asked(id: str, tokens: int | None, *, classes: tuple[int, ...] = (0,), **fields: Any) -> Request:
    predicted = None if tokens is None else LengthPrediction(tokens, classes)
    return fakes.request(id, predicted=predicted, **fields)


def order(policy: Policy, *held: Request, fleet: FleetView = FLEET) -> str:
    return "".join(one.id for one in policy.order(iter(held), fleet))


def answer(policy: Policy, request: Request, tokens: int | None) -> None:
    """Let a request be sent and answered."""
    policy.note(Sent(0.0, request, "r"))
    policy.note(Finished(1.0, request.id, output_tokens=tokens))


def test_the_shortest_expected_answer_goes_first_and_equals_keep_their_order() -> None:
    held = asked("a", 500), asked("b", 10), asked("c", 100), asked("d", 10)
    assert order(Policy(), *held) == "bdca"
    assert order(Policy(), held[0]) == "a"


def test_nobody_overtakes_who_has_no_prediction() -> None:
    held = asked("a", 500), asked("b", 90), asked("c", None), asked("d", 10), asked("e", None), asked("f", 1)
    assert order(Policy(), *held) == "bacdef"
    assert order(Policy(), *(asked(one, None) for one in "xyz")) == "xyz"


def test_a_prediction_that_rules_out_nothing_counts_as_the_mean_answer() -> None:
    policy, anything = Policy(), (0, 1, 2)
    held = (
        asked("a", 300),
        asked("b", 50, classes=anything),
        asked("c", 900, classes=anything),
        asked("d", 20),
    )
    assert order(policy, *held) == "dbac"
    answer(policy, asked("q", 70, classes=anything), 400)
    assert order(policy, *held) == "dabc"
    answer(policy, asked("q", 70), 20)
    assert order(policy, *held) == "dbca"


def test_who_has_waited_long_enough_is_overtaken_by_nobody() -> None:
    held = asked("a", 900), asked("b", 500), asked("c", 10), asked("d", 5)
    flights = {one.id: Flight(one, 0, "m", 3, arrived_s=float(n)) for n, one in enumerate(held)}
    fleet = fakes.fleet(now_s=10.0, flights=flights)
    assert order(Policy(patience_s=9.0), *held, fleet=fleet) == "abdc"
    assert order(Policy(patience_s=9.5), *held, fleet=fleet) == "adcb"
    assert order(Policy(patience_s=11.0), *held, fleet=fleet) == "dcba"


def test_a_tenant_whose_answers_come_out_otherwise_is_corrected_and_no_other() -> None:
    policy = Policy(evidence=10**6)
    held = asked("a", 100, tenant="wordy"), asked("b", 300, tenant="wordy"), asked("c", 200, tenant="plain")
    assert order(policy, *held) == "acb"
    for n in range(40):
        answer(policy, asked(f"q{n}", 100, tenant="wordy"), 900)
    assert policy.expected_tokens(held[0]) > 500
    assert policy.expected_tokens(held[2]) == 200
    assert order(policy, *held) == "cba"


def test_only_answers_with_a_count_teach_and_the_end_of_a_request_is_its_end() -> None:
    policy, request = Policy(), asked("q", 100)
    for end in (Cancelled(1.0, "q"), Failed(1.0, "q", "broken"), Finished(1.0, "q")):
        policy.note(Arrived(0.0, request))
        policy.note(Sent(0.0, request, "r"))
        policy.note(end)
        policy.note(Finished(2.0, "q", output_tokens=5000))
    policy.note(Sent(0.0, asked("u", None), "r"))
    policy.note(Finished(2.0, "u", output_tokens=5000))
    assert policy.expected_tokens(request) == 100


def test_predictions_that_stop_ranking_are_not_followed_until_they_rank_again() -> None:
    policy = Policy(remembered=8, evidence=20)
    held = asked("a", 1000), asked("b", 10)
    assert order(policy, *held) == "ba"
    for n in range(8):  # the long ones come out short and the other way round, each from a tenant of its own
        answer(policy, asked(f"l{n}", 1000, tenant=f"{n}"), 10)
        answer(policy, asked(f"s{n}", 10, tenant=f"{n}"), 1000)
    assert not policy.trusted
    assert order(policy, *held) == "ab"
    for n in range(8):
        answer(policy, asked(f"L{n}", 1000, tenant=f"x{n}"), 1000)
        answer(policy, asked(f"S{n}", 10, tenant=f"x{n}"), 10)
    assert policy.trusted
    assert order(policy, *held) == "ba"


def test_a_queue_worked_off_from_the_short_end_looks_like_nothing_is_wrong() -> None:
    policy = Policy()
    for tokens in range(10, 2000, 10):
        answer(policy, asked(f"q{tokens}", tokens, tenant=f"{tokens}"), tokens * (1 + tokens // 10 % 3))
        assert policy.trusted


def test_tenants_that_are_long_gone_are_forgotten() -> None:
    policy = Policy()
    for n in range(MOST_TENANTS + 1):
        answer(policy, asked("q", 100, tenant=f"t{n}"), 1000)
    assert policy.expected_tokens(asked("q", 100, tenant="t0")) == 100
    assert policy.expected_tokens(asked("q", 100, tenant="t1")) > 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience_s": -1.0}, "patience_s is -1"),
        ({"remembered": 0}, "remembered is 0"),
        ({"distrust_below": 0.7}, "distrust_below is 0.7"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**settings)

"""Virtual token counters: who was served least goes first."""

from __future__ import annotations

import pytest

from millrace.core.event import Cancelled, Event, Failed, Finished, Started, Ticked
from millrace.core.fleet import Left
from millrace.core.request import Request
from millrace.policies.queueing.vtc import FEW_ACCOUNTS, MOST_IDLE, Policy
from millrace.testing import fakes
from tests.unit.policies.queueing.held import FLEET, hold, order, send, served


def of(tenant: str, number: int, prompt_tokens: int = 100, model: str = "m") -> Request:
    return fakes.request(
        f"{tenant}{number}", tenant=tenant, prompt_tokens=prompt_tokens, max_tokens=50, model=model
    )


def test_tenants_alternate_by_the_tokens_of_their_prompts() -> None:
    policy = Policy()
    held = [of("a", 1), of("a", 2), of("a", 3), of("b", 1, 250), of("b", 2, 250)]
    hold(policy, *held)
    assert served(policy, *held) == ["a1", "b1", "a2", "a3", "b2"]


def test_answers_are_charged_when_they_end_twice_as_dear_as_prompts() -> None:
    policy, request = Policy(), of("a", 1)
    send(policy, request, held=False)
    assert policy.charged("a") == 100
    policy.note(Started(1.0, "a1"))
    policy.note(Finished(2.0, "a1", output_tokens=30))
    assert policy.charged("a") == 160
    assert order(policy, of("a", 2), of("b", 1)) == ["b1", "a2"]


def test_what_nobody_counted_is_charged_as_the_mean_or_as_the_most_it_may_be() -> None:
    policy = Policy(prompt_weight=0.0)
    ends: list[Event] = [
        Finished(1.0, "a0"),  # the engine did not say: as long as it may be
        Cancelled(1.0, "a1"),  # nobody began to answer
        Failed(1.0, "a2", "broke"),
        Finished(1.0, "a3", output_tokens=10),
    ]
    for number, end in enumerate(ends):
        send(policy, of("a", number), held=False)
        policy.note(end)
    assert policy.charged("a") == 2 * (50 + 10)
    send(policy, of("a", 4), held=False)
    policy.note(Started(1.0, "a4"))
    policy.note(Cancelled(1.0, "a4"))
    assert policy.charged("a") == 2 * (50 + 10 + 10)
    policy.note(Started(1.0, "gone"))
    policy.note(Finished(1.0, "gone", output_tokens=5))
    policy.note(Ticked(2.0))
    assert policy.charged("a") == 140


def test_who_was_idle_saves_up_nothing() -> None:
    policy = Policy()
    hold(policy, *(busy := [of("a", n) for n in range(10)]))
    for request in busy[:5]:
        send(policy, request)
    idle = [of("b", n) for n in range(3)]
    hold(policy, *idle)
    assert policy.charged("b") == policy.charged("a") == 500
    assert served(policy, *busy[5:], *idle) == ["b0", "a5", "b1", "a6", "b2", "a7", "a8", "a9"]
    hold(policy, of("c", 1))
    assert policy.charged("c") == policy.charged("a")  # who waited last, as nobody does now


def test_who_leaves_without_being_served_is_charged_nothing() -> None:
    policy, here, gone = Policy(), of("a", 1), of("a", 2)
    hold(policy, gone, here, of("a", 3, model="n"))
    policy.note(Left(0.0, gone))
    assert policy.charged("a") == 0
    assert policy.first("m", FLEET) == "a1"
    assert policy.first("n", FLEET) == "a3"
    assert policy.first("unheard-of", FLEET) is None


def test_a_retry_is_charged_again_and_a_move_is_not() -> None:
    policy, request = Policy(), of("a", 1)
    send(policy, request, held=False)
    send(policy, request, held=False, moved=True)
    assert policy.charged("a") == 100
    send(policy, request, held=False)
    assert policy.charged("a") == 200
    policy.note(Finished(1.0, "a1", output_tokens=0))
    hold(policy, of("b", 1))
    assert policy.charged("b") == 0


def test_tenants_of_whom_nothing_is_left_to_know_are_forgotten() -> None:
    policy = Policy()
    hold(policy, of("stays", 0))
    for number in range(5 * FEW_ACCOUNTS):
        request = of(f"t{number}", 0)
        send(policy, request, held=False)
        policy.note(Finished(1.0, request.id, output_tokens=0))
        hold(policy, of("stays", number + 1))
        send(policy, of("stays", number), cached=0)
        policy.note(Finished(1.0, f"stays{number}", output_tokens=10))
    assert len(policy._accounts) <= 2 * FEW_ACCOUNTS
    assert policy.charged("stays") > 0


def test_tenants_that_anybody_invents_are_forgotten_where_nobody_ever_waits() -> None:
    policy = Policy()
    for number in range(5 * MOST_IDLE):
        request = of(f"t{number}", 0, prompt_tokens=1 + number)
        send(policy, request, held=False)
        policy.note(Finished(1.0, request.id, output_tokens=0))
    assert len(policy._accounts) <= 2 * (MOST_IDLE + 1)
    assert policy.charged(request.tenant) == 5 * MOST_IDLE


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="answer_weight is -2"):
        Policy(answer_weight=-2.0)
    with pytest.raises(ValueError, match="weights: that of 'a' is 0"):
        Policy(weights={"a": 0.0})

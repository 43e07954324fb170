"""Deficit round robin: a quantum of tokens for each tenant in turn."""

from __future__ import annotations

import pytest

from millrace.core.event import Ticked
from millrace.core.fleet import Left
from millrace.core.request import Request
from millrace.policies.queueing.drr import Policy
from millrace.testing import fakes
from tests.unit.policies.queueing.held import FLEET, hold, order, send, served


def of(tenant: str, number: int, prompt_tokens: int = 100) -> Request:
    return fakes.request(f"{tenant}{number}", tenant=tenant, prompt_tokens=prompt_tokens)


def lines(*tenants: str, each: int, prompt_tokens: int = 100) -> list[Request]:
    return [of(tenant, number, prompt_tokens) for tenant in tenants for number in range(each)]


def test_each_sends_a_quantum_and_keeps_what_it_did_not_use() -> None:
    policy, held = Policy(quantum_tokens=250), lines("a", "b", each=5)
    hold(policy, *held)
    want = ["a0", "a1", "b0", "b1", "a2", "a3", "a4", "b2", "b3", "b4"]
    assert order(policy, *held) == want
    assert served(policy, *held) == want
    assert policy.first("m", FLEET) is None


def test_long_prompts_take_as_many_rounds_as_they_need() -> None:
    policy = Policy(quantum_tokens=100)
    held = [of("a", 0, 350), *lines("b", each=5)]
    hold(policy, *held)
    assert order(policy, *held) == served(policy, *held) == ["b0", "b1", "b2", "a0", "b3", "b4"]


def test_what_is_cached_costs_nothing() -> None:
    policy, held = Policy(quantum_tokens=100), lines("a", "b", each=3)
    hold(policy, *held)
    send(policy, held[0], cached=90)
    send(policy, held[1], cached=90)
    assert policy.first("m", FLEET) == "b0"


def test_who_is_placed_out_of_turn_is_charged_for_it() -> None:
    policy, held = Policy(quantum_tokens=100), lines("a", "b", each=3)
    hold(policy, *held)
    send(policy, held[3])
    assert served(policy, *held[:3], *held[4:]) == ["a0", "a1", "b1", "a2", "b2"]


def test_who_leaves_without_being_sent_takes_no_turn() -> None:
    policy, held = Policy(quantum_tokens=100), lines("a", "b", each=2)
    hold(policy, *held)
    policy.note(Left(0.0, held[0]))
    policy.note(Ticked(1.0))
    assert policy.first("m", FLEET) == "a1"
    policy.note(Left(0.0, held[1]))
    assert policy.first("m", FLEET) == "b0"
    policy.note(Ticked(1.0))
    assert served(policy, *held[2:]) == ["b0", "b1"]


def test_a_newcomer_enters_behind_all_others() -> None:
    policy, held = Policy(quantum_tokens=100), lines("a", "b", each=2)
    hold(policy, *held)
    send(policy, held[0])
    late = of("c", 0)
    hold(policy, late)
    assert served(policy, *held[1:], late) == ["b0", "c0", "a1", "b1"]
    assert order(policy, held[0]) == ["a0"]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="quantum_tokens is 0"):
        Policy(quantum_tokens=0)

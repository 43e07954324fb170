"""As much of the prompts as a step has time for."""

from __future__ import annotations

import pytest

from millrace.core.batch import Grant, Plan, informed
from millrace.core.cost import Linear, StepShape
from millrace.policies.batching.adaptive_budget import Policy
from millrace.testing.fakes import batch

A_TOKEN_A_MS = Linear(base_s=0.0, per_token_s=0.001)


def test_a_step_with_decodes_ends_in_time() -> None:
    policy = informed(Policy(tpot_s=0.0105, least_tokens=1), A_TOKEN_A_MS)
    seen = batch({"a": 1, "b": 1}, {"long": 50, "more": 5}, step_tokens=40)
    assert policy.plan(seen) == Plan(2, [Grant("long", 8)], steps=1)


def test_a_step_is_filled_when_all_is_in_time_and_when_nobody_decodes() -> None:
    policy = informed(Policy(tpot_s=0.0105, least_tokens=1), A_TOKEN_A_MS)
    short = batch({"a": 1}, {"b": 3, "c": 4}, step_tokens=40)
    assert policy.plan(short) == Plan(1, [Grant("b", 3), Grant("c", 4)], steps=1)
    assert policy.plan(batch({"begun": 50}, {}, step_tokens=40)) == Plan(0, [Grant("begun", 40)])
    assert policy.plan(batch({"a": 1}, {}, step_tokens=40)) == Plan(1)


@pytest.mark.parametrize("tpot_s", [0.001, 0.0005])
def test_prompts_go_on_where_no_step_is_in_time_and_where_nobody_knows(tpot_s: float) -> None:
    seen = batch({"a": 1}, {"b": 30}, step_tokens=40)
    least = Plan(1, [Grant("b", 3)], steps=1)
    assert informed(Policy(tpot_s=tpot_s, least_tokens=3), A_TOKEN_A_MS).plan(seen) == least
    assert Policy(tpot_s=9.0, least_tokens=3).plan(seen) == least


def test_what_has_to_be_looked_at_takes_time_too() -> None:
    cost = Linear(base_s=0.0, per_attended_s=0.001)
    policy = informed(Policy(tpot_s=0.0101, least_tokens=1), cost)
    assert cost.step_s(StepShape(decodes=1, prefills=1, prefill_tokens=4, prefill_attended_tokens=10)) == 0.01
    plan = policy.plan(batch({"a": 1}, {"b": 30}, step_tokens=40))
    assert plan == Plan(1, [Grant("b", 4)], steps=1)

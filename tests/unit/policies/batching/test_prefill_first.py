"""Whole prompts first; decodes only when there is no prompt to compute."""

from __future__ import annotations

from millrace.core.batch import Grant, Plan
from millrace.policies.batching.prefill_first import Policy
from millrace.testing.fakes import batch


def test_whole_prompts_are_granted_as_far_as_the_step_goes() -> None:
    seen = batch({"decodes": 1}, {"a": 5, "b": 4, "c": 2}, step_tokens=10)
    assert Policy().plan(seen) == Plan(0, [Grant("a", 5), Grant("b", 4)])


def test_a_step_that_is_exactly_full_ends_the_search() -> None:
    seen = batch({}, {"a": 5, "b": 5, "c": 2}, step_tokens=10)
    assert Policy().plan(seen) == Plan(0, [Grant("a", 5), Grant("b", 5)])


def test_a_prompt_longer_than_a_step_is_split_and_alone() -> None:
    assert Policy().plan(batch({}, {"a": 15, "b": 2}, step_tokens=10)) == Plan(0, [Grant("a", 10)])
    assert Policy().plan(batch({"a": 5, "d": 1}, {"b": 2}, step_tokens=10)) == Plan(0, [Grant("a", 5)])


def test_begun_prompts_share_a_step() -> None:
    seen = batch({"a": 6, "b": 6, "c": 6}, {}, step_tokens=10)
    assert Policy().plan(seen) == Plan(0, [Grant("a", 6), Grant("b", 4)])


def test_decodes_run_when_no_prompt_can() -> None:
    seen = batch({"a": 1, "b": 1}, {"c": 5}, step_tokens=10, sequences=2)
    assert Policy().plan(seen) == Plan(2)


def test_more_decodes_than_tokens_are_served_oldest_first() -> None:
    seen = batch({"a": 1, "b": 1, "c": 1}, {}, step_tokens=2)
    assert Policy().plan(seen) == Plan(2)


def test_the_last_token_of_a_begun_prompt_is_still_a_prompt() -> None:
    seen = batch({"d": 1, "begun": 3}, {"b": 9}, step_tokens=10)
    seen.known["begun"].base = 2
    assert Policy().plan(seen) == Plan(0, [Grant("begun", 1)])

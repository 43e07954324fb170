"""Decodes only, while there are more than a bound."""

from __future__ import annotations

from millrace.core.batch import Grant, Plan
from millrace.policies.batching.decode_first import Policy
from millrace.testing.fakes import batch


def test_beyond_the_bound_no_prompt_is_computed() -> None:
    seen = batch({"a": 1, "b": 1, "begun": 5}, {"waits": 3}, step_tokens=20)
    assert Policy(beside=1).plan(seen) == Plan(2)


def test_up_to_the_bound_prompts_get_what_the_decodes_leave() -> None:
    seen = batch({"a": 1, "b": 1, "begun": 5}, {"waits": 30}, step_tokens=20)
    assert Policy(beside=2).plan(seen) == Plan(2, [Grant("begun", 5), Grant("waits", 13)])


def test_more_decodes_than_a_step_holds_leave_nothing() -> None:
    assert Policy(beside=9).plan(batch({"a": 1, "b": 1, "c": 1}, {"d": 1}, step_tokens=2)) == Plan(2)


def test_a_begun_prompt_that_fills_the_step_leaves_nothing_to_those_behind_it() -> None:
    seen = batch({"a": 50, "b": 50}, {"c": 1}, step_tokens=10)
    assert Policy().plan(seen) == Plan(0, [Grant("a", 10)])

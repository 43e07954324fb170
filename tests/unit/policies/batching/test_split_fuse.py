"""Decodes first, then prompt tokens until the step is full."""

from __future__ import annotations

from millrace.core.batch import Grant, Plan
from millrace.policies.batching.split_fuse import Policy
from millrace.testing.fakes import batch


def test_decodes_come_first_then_begun_prompts_then_waiting_ones() -> None:
    seen = batch({"begun": 5, "decodes": 1}, {"waits": 3}, step_tokens=20)
    assert Policy().plan(seen) == Plan(1, [Grant("begun", 5), Grant("waits", 3)])


def test_the_prompt_that_fills_the_step_is_split() -> None:
    seen = batch({"decodes": 1}, {"a": 5, "b": 9, "c": 2}, step_tokens=10)
    assert Policy().plan(seen) == Plan(1, [Grant("a", 5), Grant("b", 4)])


def test_a_begun_prompt_leaves_nothing_to_those_behind_it() -> None:
    seen = batch({"a": 50, "b": 50}, {"c": 1}, step_tokens=10)
    assert Policy().plan(seen) == Plan(0, [Grant("a", 10)])


def test_more_decodes_than_tokens_are_served_oldest_first() -> None:
    seen = batch({"a": 1, "b": 1, "c": 1}, {"d": 1}, step_tokens=2)
    assert Policy().plan(seen) == Plan(2)


def test_nobody_is_admitted_beyond_the_sequence_limit() -> None:
    seen = batch({"a": 1}, {"b": 1, "c": 1}, step_tokens=9, sequences=2)
    assert Policy().plan(seen) == Plan(1, [Grant("b", 1)])

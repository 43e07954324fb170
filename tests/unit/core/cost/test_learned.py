"""What steps take, learnt from steps."""

from __future__ import annotations

import pytest

from millrace.core.cost import Linear, StepShape
from millrace.core.cost.learned import Learned

TRUE = Linear(base_s=0.01, per_token_s=1e-4, per_context_s=1e-6)


def shape(decodes: int, prompt: int) -> StepShape:
    return StepShape(decodes, decodes * 100, 1, prompt, prompt * prompt, decodes)


def test_nothing_is_known_before_some_steps_were_seen() -> None:
    times = Learned()
    for n in range(15):
        times.see(shape(n + 1, 5), 0.01)
    assert times.step_s(shape(1, 5)) is None


def test_a_step_like_those_seen_is_predicted_and_one_far_larger_is_not() -> None:
    times = Learned()
    for n in range(16):
        times.see(shape(n + 1, 10 * n), TRUE.step_s(shape(n + 1, 10 * n)))
    assert times.step_s(shape(5, 100)) == pytest.approx(TRUE.step_s(shape(5, 100)), rel=0.05)
    assert times.step_s(shape(5, 300)) is not None
    assert times.step_s(shape(5, 400)) is None


def test_what_was_long_ago_is_forgotten_and_what_is_no_step_is_not_seen() -> None:
    times = Learned()
    for n in range(16):
        times.see(shape(n + 1, 100), 9.0)
    for n in range(64):
        times.see(shape(n % 9 + 1, 10), 0.5)
        times.see(shape(1, 10), 0.0)
        times.see(StepShape(), 1.0)
    assert times.step_s(shape(3, 10)) == pytest.approx(0.5)
    assert times.step_s(shape(1, 100)) is None

"""Steps that scatter as measured ones did: the same step always alike, all together like the truth."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

import pytest

from millrace.core.calibration import Scattered
from millrace.core.cost import Linear, StepShape
from millrace.core.stats import mean

COST = Linear(base_s=0.002, per_token_s=1e-4, per_context_s=1e-6)


def _decode(context: int, decodes: int = 1) -> StepShape:
    return StepShape(decodes=decodes, decode_context_tokens=context, emits=decodes)


def _prompt(tokens: int) -> StepShape:
    return StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=tokens, emits=1)


def test_a_step_of_an_engine_always_takes_as_long_and_on_another_engine_perhaps_not() -> None:
    measured = [(_decode(context), 1 + context / 1000) for context in range(100)]
    one, again, other = (Scattered(COST, measured, seed=name) for name in ("a", "a", "b"))
    steps = [_decode(context) for context in range(50)]
    assert [one.step_s(step) for step in steps] == [again.step_s(step) for step in steps]
    assert [one.step_s(step) for step in steps] != [other.step_s(step) for step in steps]


def test_steps_are_off_as_those_near_them_were() -> None:
    measured = [(_decode(context), 1.1 if context < 5000 else 0.7) for context in range(0, 10000, 10)]
    scattered = Scattered(COST, measured, seed=1)
    assert scattered.step_s(_decode(1000)) == pytest.approx(1.1 * COST.step_s(_decode(1000)))
    assert scattered.step_s(_decode(9999)) == pytest.approx(0.7 * COST.step_s(_decode(9999)))


def test_prompts_and_decodes_scatter_each_in_their_own_way() -> None:
    measured = [(_decode(0), 0.5)] * 60 + [(_prompt(1), 3.0)] * 60
    scattered = Scattered(COST, measured, seed=1)
    assert scattered.step_s(_decode(0)) == pytest.approx(0.5 * COST.step_s(_decode(0)))
    assert scattered.step_s(_prompt(1)) == pytest.approx(3.0 * COST.step_s(_prompt(1)))


def test_a_kind_that_was_never_measured_scatters_like_the_other() -> None:
    scattered = Scattered(COST, [(_decode(0), 2.0)], seed=1)
    assert scattered.step_s(_prompt(100)) == pytest.approx(2.0 * COST.step_s(_prompt(100)))


def test_steps_of_the_very_same_price_are_all_drawn_from() -> None:
    flat = Linear(base_s=0.001)
    measured = [(_decode(context), 0.5 + context % 2) for context in range(1000)]
    scattered = Scattered(flat, sorted(measured, key=lambda one: one[1]), seed=1)
    assert mean(scattered.step_s(_decode(n)) for n in range(1000)) == pytest.approx(0.001, rel=0.1)


def _alike(scattered: Scattered, steps: int) -> float:
    """How often a step and the one after it are both slow or both quick."""
    slow = [scattered.step_s(_decode(n)) > COST.step_s(_decode(n)) for n in range(steps)]
    return mean(float(a == b) for a, b in pairwise(slow))


def test_slow_steps_come_in_spells_if_measured_ones_did() -> None:
    spells = [(_decode(n % 400), 1.2 if n // 20 % 2 else 0.8) for n in range(4000)]
    mixed = [(_decode(n % 400), 1.2 if n % 3 else 0.8) for n in range(4000)]
    assert _alike(Scattered(COST, spells, seed=1), 1000) > 0.8
    assert _alike(Scattered(COST, mixed, seed=1), 1000) < 0.65


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="measured is empty"):
        Scattered(COST, [], seed=1)


def test_scattered_steps_are_never_jumped_over_and_their_energy_is_unknown() -> None:
    scattered = Scattered(COST, [(_decode(0), 1.0)], seed=1)
    assert scattered.straight(_decode(1), _decode(2)) == 1
    assert isnan(scattered.step_j(_decode(1)))
    assert scattered.needs_lengths is False

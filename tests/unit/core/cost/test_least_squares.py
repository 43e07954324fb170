from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.cost import Linear, StepShape, fit
from millrace.core.cost.linear import COEFFICIENTS
from millrace.core.draw import draw_below


def steps(count: int) -> list[StepShape]:
    """Steps of every kind: decodes, prompts, both."""
    shapes = []
    for i in range(count):
        decodes = draw_below(30, "decodes", i) if i % 3 else 0
        prompt = 1 + draw_below(500, "prompt", i) if i % 2 or not decodes else 0
        context = decodes * draw_below(2000, "context", i)
        ends = draw_below(2, "ends", i) if prompt else 0
        pairs = prompt * draw_below(1000, "cached", i) + prompt * (prompt + 1) // 2
        shapes.append(StepShape(decodes, context, min(prompt, 1), prompt, pairs, decodes + ends))
    return shapes


def test_a_linear_engine_is_found_out_exactly() -> None:
    true = Linear(
        base_s=1e-3,
        per_token_s=2e-5,
        per_decode_s=3e-5,
        per_context_s=4e-8,
        per_prefill_s=5e-4,
        per_attended_s=6e-9,
        per_emit_s=7e-5,
        batch_s=8e-4,
    )
    lone = [StepShape(1, context, emits=1) for context in range(0, 1000, 50)]
    found = fit([(shape, true.step_s(shape)) for shape in steps(280) + lone], source="here")
    for name in COEFFICIENTS:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-3)
    assert found.error is not None
    assert (found.error.fitted, found.error.held_out, found.source) == (240, 60, "here")
    assert found.error.mean < 1e-5 > found.error.p95 / 10


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e-3), min_size=8, max_size=8).filter(any), st.floats(0, 0.3))
def test_no_coefficient_is_ever_negative(values: list[float], noise: float) -> None:
    true = Linear(**dict(zip(COEFFICIENTS, values, strict=True)))  # type: ignore[arg-type]
    samples = [
        (shape, (true.step_s(shape) + 1e-6) * (1 + noise * (draw_below(200, i) / 100 - 1)))
        for i, shape in enumerate(steps(60))
    ]
    found = fit(samples)
    assert all(getattr(found, name) >= 0 for name in COEFFICIENTS)
    assert found.error is not None
    assert found.error.mean <= noise + 0.05


def test_a_cost_that_falls_with_work_is_fitted_as_a_constant() -> None:
    samples = [(StepShape(decodes=n, decode_context_tokens=n, emits=n), 1.0 / n) for n in range(1, 21)]
    found = fit(samples)
    assert found.base_s > 0
    assert (found.per_token_s, found.per_decode_s, found.per_emit_s, found.per_context_s) == (0, 0, 0, 0)


def test_a_log_of_decodes_alone_is_priced_right_although_its_columns_are_equal() -> None:
    samples = [
        (StepShape(decodes=n, decode_context_tokens=50 * n * n, emits=n), 1e-3 + 1e-4 * n)
        for n in range(1, 41)
    ]
    found = fit(samples)
    assert found.step_s(StepShape(decodes=100, decode_context_tokens=10**5, emits=100)) == pytest.approx(
        0.011, rel=0.02
    )
    assert found.per_prefill_s == found.per_attended_s == 0


def test_the_error_is_that_of_steps_the_fit_has_not_seen() -> None:
    fifth = [(StepShape(decodes=1), 2.0 if (i + 1) % 5 == 0 else 1.0) for i in range(20)]
    found = fit(fifth)
    assert found.step_s(StepShape(decodes=1)) == pytest.approx(1.0)
    assert found.error is not None
    assert found.error.mean == pytest.approx(0.5)


def test_too_few_steps_and_impossible_times_are_refused() -> None:
    with pytest.raises(ValueError, match="samples has 9 steps; measure at least 10"):
        fit([(StepShape(1), 1.0)] * 9)
    with pytest.raises(ValueError, match="samples: step 10 took 0 s"):
        fit([(StepShape(1), 1.0)] * 10 + [(StepShape(1), 0)])


def test_steps_that_were_interrupted_raise_the_mean_and_do_not_lower_it() -> None:
    true = Linear(base_s=2e-3, per_token_s=2e-5, per_context_s=4e-8)
    shapes = steps(400)
    noisy = [
        (s, true.step_s(s) * (4.0 if draw_below(5, "hit", i) == 0 else 1.0)) for i, s in enumerate(shapes)
    ]
    found = fit(noisy)
    paid_s = sum(seconds for _, seconds in noisy)
    assert sum(found.step_s(shape) for shape in shapes) == pytest.approx(paid_s, rel=0.1)

"""The fit to samples, and its error on those held out."""

from __future__ import annotations

import pytest

from millrace.core.calibration import fitted, points
from millrace.core.calibration.fitting import price_s
from millrace.core.cost import StepShape
from tests.unit.core.calibration.truth import TRUTH, measured


def test_the_prices_of_an_engine_without_jitter_are_found() -> None:
    found = fitted(measured(points(2048)), source="test")
    assert found.cost.source == "test"
    assert found.cost.error is not None
    assert found.cost.error.p95 < 1e-3
    assert found.errors.keys() == {"prefill", "decode", "mixed"}
    step = StepShape(decodes=5, decode_context_tokens=3000, prefills=1, prefill_tokens=200, emits=6)
    assert found.cost.step_s(step) == pytest.approx(TRUTH.step_s(step), rel=0.01)


def test_what_is_held_out_does_not_change_the_fit() -> None:
    samples = measured(points(2048))
    held_out = [one for one in samples if one.held_out]
    assert 0 < len(held_out) < len(samples)
    shown = [one for one in samples if not one.held_out]
    assert fitted(shown + held_out[:2], source="") != fitted(samples, source="")
    assert fitted(shown + held_out[:2], source="").cost.base_s == fitted(samples, source="").cost.base_s


def test_coefficients_that_are_not_named_stay_0() -> None:
    found = fitted(measured(points(2048)), source="", coefficients=("base_s", "per_token_s"))
    assert found.cost.base_s > 0
    assert found.cost.per_context_s == found.cost.per_decode_s == 0.0


def test_a_sample_costs_the_sum_of_its_steps() -> None:
    one = measured(points(256))[0]
    assert price_s(TRUTH, one) == sum(TRUTH.step_s(step) for step in one.steps)


def test_too_few_samples_are_refused() -> None:
    samples = measured(points(2048))
    with pytest.raises(ValueError, match="9 to fit to"):
        fitted([one for one in samples if not one.held_out][:9], source="")
    with pytest.raises(ValueError, match="0 held out"):
        fitted([one for one in samples if not one.held_out], source="")

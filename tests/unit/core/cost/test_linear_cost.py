from __future__ import annotations

import json
from math import isnan
from typing import Any

import pytest

from millrace.core.cost import FitError, Linear, StepShape

LINEAR = Linear(
    base_s=1e-3,
    per_token_s=1e-4,
    per_decode_s=1e-5,
    per_context_s=1e-6,
    per_prefill_s=1e-7,
    per_attended_s=1e-8,
    per_emit_s=1e-9,
    batch_s=2e-3,
    power_w=40,
    error=FitError(mean=0.031, p95=0.08, fitted=400, held_out=100),
    source="two cores",
)


def test_a_step_costs_the_sum_of_what_it_does() -> None:
    shape = StepShape(2, 300, 1, 50, 1275, 3)
    seconds = 1e-3 + 52e-4 + 2e-5 + 300e-6 + 1e-7 + 1275e-8 + 3e-9 + 2e-3
    assert LINEAR.step_s(shape) == pytest.approx(seconds)
    assert LINEAR.step_j(shape) == pytest.approx(40 * seconds)


def test_a_single_token_is_no_batch() -> None:
    assert LINEAR.step_s(StepShape(1, 300, emits=1)) == pytest.approx(1e-3 + 1e-4 + 1e-5 + 300e-6 + 1e-9)


def test_an_empty_step_costs_nothing_at_all() -> None:
    assert LINEAR.step_s(StepShape()) == 0.0


def test_unknown_power_makes_unknown_energy() -> None:
    assert isnan(Linear(base_s=1.0).step_j(StepShape(1)))


def test_a_calibration_comes_back_from_its_file_as_it_was() -> None:
    assert Linear.from_dict(json.loads(json.dumps(LINEAR.to_dict()))) == LINEAR
    assert Linear.from_dict(Linear(base_s=0.5).to_dict()) == Linear(base_s=0.5)


def test_it_says_how_far_off_it_was() -> None:
    assert LINEAR.expected_error == "mean 3.1%, 95th percentile 8.0% of 100 steps"
    assert Linear(base_s=1.0).expected_error == "not measured"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "millrace.linear/2"}, "schema is 'millrace.linear/2'; it must be 'millrace.linear/1'"),
        ({"base_s": "slow"}, r"Expected `float`, got `str` - at `\$.base_s`"),
        ({"per_tokn_s": 1}, "unknown field `per_tokn_s`"),
        ({"per_emit_s": -1e-9}, "per_emit_s is -1e-09; it must not be negative"),
        ({"power_w": -1}, "power_w is -1.0; it must not be negative"),
    ],
)
def test_a_broken_calibration_is_refused_by_the_field_at_fault(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Linear.from_dict(LINEAR.to_dict() | change)

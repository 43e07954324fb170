from __future__ import annotations

import json
from math import isnan
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import (
    AttentionFit,
    AttentionGrid,
    Curve,
    Experts,
    FitError,
    Operators,
    Profiled,
    Roofline,
    SharedCost,
    StepShape,
)
from millrace.core.cost.attention_fit import DecodeTerms, MixedTerms
from millrace.core.cost.shape import ENDLESS

OPERATORS = Operators(dense=Curve((0, 100), (1.0, 2.0)), head=Curve((0, 10), (0.0, 1.0)))
EXPERTS = Experts(tokens=(1,), woken=(Curve((1,), (5.0,)),), experts=8, active=2)
FIT = AttentionFit(
    decode=DecodeTerms(0.5, 0, 0),
    mixed=MixedTerms(0.25, 0, 0, 0, 0, 0, 0, 0),
    alpha=0.1,
    error=FitError(mean=0.1, p95=0.2, fitted=80, held_out=20),
)
PROFILED = Profiled(replace(OPERATORS, experts=EXPERTS), FIT)
DECODE = StepShape(10, 1000, emits=10)


def test_a_step_is_its_operators_and_its_attention() -> None:
    assert PROFILED.step_s(DECODE) == pytest.approx(1.1 + 1.0 + 0.5 + 5.0)
    assert PROFILED.own_s(DECODE) == pytest.approx(1.1 + 1.0 + 0.5)
    assert PROFILED.experts_s(10) == 5.0
    assert PROFILED.step_s(StepShape()) == PROFILED.own_s(StepShape()) == 0
    assert isinstance(PROFILED, SharedCost)


def test_attention_says_what_it_needs_and_how_good_it_is() -> None:
    assert PROFILED.needs_lengths
    assert PROFILED.expected_error.startswith("attention fitted, mean 10.0%")
    assert PROFILED.straight(DECODE, DECODE) == ENDLESS


def test_power_and_price_come_from_the_data_sheet_or_are_not_known() -> None:
    sheet = Roofline(model("llama-3-8b"), device("h100"), tensor_parallel=2)
    priced = Profiled(OPERATORS, FIT, sheet=sheet)
    seconds = priced.step_s(DECODE)
    assert priced.step_j(DECODE) == pytest.approx(sheet.power_w(DECODE, seconds) * seconds)
    assert priced.price_per_h == 2 * 3.99
    assert priced.rank_j(DECODE, DECODE.tokens, seconds) == priced.step_j(DECODE)
    assert isnan(PROFILED.step_j(DECODE))
    assert isnan(PROFILED.rank_j(DECODE, 4, 1.0))
    assert PROFILED.price_per_h is None


def test_a_fit_comes_back_from_its_file_as_it_was() -> None:
    fields = json.loads(json.dumps(PROFILED.to_dict()))
    again = Profiled.from_dict(fields)
    assert (again.operators, again.attention) == (PROFILED.operators, PROFILED.attention)
    assert again.to_dict() == PROFILED.to_dict()


def test_a_grid_is_not_written() -> None:
    grid = AttentionGrid({(0, 0, 1, 16): 1.0, (16, 0, 0, 0): 1.0})
    with pytest.raises(ValueError, match="a measured grid is not written to one file"):
        Profiled(OPERATORS, grid).to_dict()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "millrace.linear/1"}, "schema is 'millrace.linear/1'; it must be 'millrace.profile/1'"),
        ({"operators": {}}, "missing required field `dense`"),
        ({"attention": {"decode": [1]}}, "Expected `object`, got `array`"),
    ],
)
def test_a_broken_file_is_refused_by_the_field_at_fault(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Profiled.from_dict(PROFILED.to_dict() | change)

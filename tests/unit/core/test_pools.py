"""Pools are as large as their own demand; one fleet for both pays the floor of a step everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.pools import Demand, Device, coupled, fit_device, pooled

DEVICE = Device(prefill_tokens_per_s=1000.0, floor_s=0.01, per_sequence_s=0.001)


def test_a_line_through_two_operating_points_gives_them_back() -> None:
    found = fit_device([(0.05, 800.0), (0.02, 500.0)], 1000.0)
    assert found.floor_s == pytest.approx(0.01)
    assert found.per_sequence_s == pytest.approx(0.001)
    assert found.decode_tokens_per_s(0.05) == pytest.approx(800)
    assert found.step_s(10) == pytest.approx(0.02)


def test_one_operating_point_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two with different batches"):
        fit_device([(0.05, 800.0), (0.1, 400.0)], 1000.0)


def test_each_pool_is_as_large_as_its_demand() -> None:
    assert pooled(Demand(prompt_tokens_per_s=2500, answer_tokens_per_s=900), DEVICE, 0.05) == 3 + 2
    assert pooled(Demand(prompt_tokens_per_s=2500, answer_tokens_per_s=0), DEVICE, 0.05) == 3


def test_one_fleet_pays_the_floor_for_prompts_too() -> None:
    assert coupled(Demand(prompt_tokens_per_s=80_000, answer_tokens_per_s=0), DEVICE, 0.05) == 100
    assert coupled(Demand(prompt_tokens_per_s=0, answer_tokens_per_s=80_000), DEVICE, 0.05) == 100


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.012, 1.0))
def test_pools_need_at_most_one_device_more_than_one_fleet(
    prompts: float, answers: float, tpot_s: float
) -> None:
    demand = Demand(prompt_tokens_per_s=prompts, answer_tokens_per_s=answers)
    assert pooled(demand, DEVICE, tpot_s) <= coupled(demand, DEVICE, tpot_s) + 1


@pytest.mark.parametrize("tpot_s", [0.01, 0.005])
def test_a_time_that_no_step_keeps_is_refused(tpot_s: float) -> None:
    assert DEVICE.sequences(tpot_s) == 0
    for size in (pooled, coupled):
        with pytest.raises(ValueError, match=r"a step takes at least 0\.01 s"):
            size(Demand(prompt_tokens_per_s=1, answer_tokens_per_s=1), DEVICE, tpot_s)

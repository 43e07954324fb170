"""A scaled cost model differs from the one inside by its factor, and in nothing else."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device, model
from millrace.core.cost import Linear, Roofline, SharedCost, StepShape
from millrace.core.cost.scaled import Scaled, scaled
from millrace.core.cost.shape import ENDLESS

SHAPE = StepShape(decodes=3, decode_context_tokens=300, emits=3)
LINEAR = Linear(base_s=0.01, per_context_s=1e-5, power_w=500.0)


class Bent(Linear, frozen=True, kw_only=True):
    """A linear price that says it bends after seven iterations and depends on lengths."""

    needs_lengths = True

    def straight(self, shape: StepShape, following: StepShape) -> int:
        return 7


def test_time_and_energy_are_scaled() -> None:
    scaled = Scaled(LINEAR, 1.1)
    assert scaled.step_s(SHAPE) == pytest.approx(1.1 * LINEAR.step_s(SHAPE))
    assert scaled.step_j(SHAPE) == pytest.approx(1.1 * LINEAR.step_j(SHAPE))


def test_a_price_bends_where_the_one_inside_does() -> None:
    assert Scaled(Bent(base_s=0.01), 0.9).straight(SHAPE, SHAPE) == 7
    assert Scaled(LINEAR, 0.9).straight(SHAPE, SHAPE) == ENDLESS


def test_lengths_are_asked_for_if_the_one_inside_asks() -> None:
    assert Scaled(Bent(base_s=0.01), 0.9).needs_lengths
    assert not Scaled(LINEAR, 0.9).needs_lengths


def test_ranks_that_share_experts_still_share_them() -> None:
    sheet = Roofline(model("mixtral-8x7b"), device("h200"), data_parallel=2)
    longer = scaled(sheet, 2.0)
    assert isinstance(longer, SharedCost)
    assert longer.own_s(SHAPE) == 2 * sheet.own_s(SHAPE)
    assert longer.experts_s(10) == 2 * sheet.experts_s(10)
    assert longer.rank_j(SHAPE, 10, 6.0) == 2 * sheet.rank_j(SHAPE, 10, 3.0)
    assert not isinstance(scaled(LINEAR, 2.0), SharedCost)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_is_a_number_above_0(factor: float) -> None:
    with pytest.raises(ValueError, match="factor"):
        Scaled(LINEAR, factor)

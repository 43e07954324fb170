"""How the price of like steps rises, as the models say it themselves and as two prices show it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.catalogue import device, model
from millrace.core.cost import ENDLESS, CostModel, Linear, Roofline, StepShape, line_of
from millrace.core.cost.energy import Metered
from millrace.core.cost.scaled import Scaled
from millrace.core.cost.shape import later

SHEET = Roofline(model("llama-3-8b"), device("a100-80g"))
EXPERTS = Roofline(model("mixtral-8x7b"), device("h100"))
LINEAR = Linear(base_s=5e-3, per_token_s=2e-5, per_context_s=4e-8, per_attended_s=3e-9, per_emit_s=1e-6)
COSTS: list[CostModel] = [SHEET, EXPERTS, LINEAR, Scaled(SHEET, 1.5), Metered(LINEAR, SHEET)]

# What can go on: decodes, beside a chunk of one prompt that is not its last.
lasting = st.builds(
    lambda decodes, each, chunk, cached: StepShape(
        decodes,
        decodes * each,
        int(chunk > 0),
        chunk,
        chunk * cached + chunk * (chunk + 1) // 2,
        decodes,
    ),
    st.integers(1, 256),
    st.integers(1, 8000),
    st.sampled_from([0, 1, 256, 511]),
    st.integers(0, 100_000),
)


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: type(cost).__name__)
@given(shape=lasting, steps=st.integers(1, 1000))
def test_a_line_goes_through_the_prices_of_its_steps(cost: CostModel, shape: StepShape, steps: int) -> None:
    first_s, gain_s, straight = line_of(cost)(shape)
    assert straight == ENDLESS
    assert first_s == pytest.approx(cost.step_s(shape), rel=1e-12)
    assert first_s + steps * gain_s == pytest.approx(cost.step_s(later(shape, steps)), rel=1e-9)


def test_a_prompt_without_decodes_has_a_line_too() -> None:
    shape = StepShape(prefills=1, prefill_tokens=512, prefill_attended_tokens=512 * 513 // 2)
    first_s, gain_s, _ = SHEET.line(shape)
    assert first_s + gain_s == pytest.approx(SHEET.step_s(later(shape, 1)))


def test_a_model_that_only_prices_steps_gets_its_line_from_two_of_them() -> None:
    class Bent:
        def step_s(self, shape: StepShape) -> float:
            return shape.decode_context_tokens / 100

        def step_j(self, shape: StepShape) -> float:
            return 0.0

        def straight(self, shape: StepShape, following: StepShape) -> int:
            return following.decode_context_tokens

    line = line_of(Bent())(StepShape(decodes=2, decode_context_tokens=40, emits=2))
    assert line[:2] == pytest.approx((0.4, 0.02))
    assert line[2] == 42

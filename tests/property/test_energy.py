"""A step draws between idle and full power, whoever prices it, and a run draws what its steps do."""

from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import (
    AttentionFit,
    AttentionGrid,
    CostModel,
    Curve,
    Linear,
    Operators,
    Profiled,
    Roofline,
    StepShape,
)
from millrace.core.cost.attention_fit import DecodeTerms, MixedTerms
from millrace.core.cost.energy import (
    ESTIMATED,
    MEASURED,
    UNKNOWN,
    Metered,
    energy_source,
    run_j,
)
from millrace.core.cost.pipelined import Pipelined
from millrace.core.cost.scaled import Scaled
from millrace.core.cost.shape import later

LLAMA, H100 = model("llama-3-8b"), device("h100")
SHEET = Roofline(LLAMA, H100)
OPERATORS = Operators(dense=Curve((1, 4096), (5e-3, 90e-3)), head=Curve((1, 512), (4e-4, 6e-4)))
FIT = AttentionFit(
    decode=DecodeTerms(4e-4, 1e-6, 4e-8),
    mixed=MixedTerms(4e-4, 1e-7, 1e-8, 3e-9, 2e-6, 8e-8, 0.0, 0.0),
)
GRID = AttentionGrid(
    {(0, 0, n, each): 4e-4 + n * each * 4e-8 for n in (1, 512) for each in (16, 1024, 16_384)}
    | {(c, k, 0, 0): 4e-4 + c * (k + c / 2) * 3e-9 for c in (16, 2048) for k in (0, 2048)}
)
LINEAR = Linear(base_s=5e-3, per_token_s=2e-5, per_context_s=4e-8, per_attended_s=3e-9)
COSTS: dict[str, CostModel] = {
    "roofline": SHEET,
    "fit": Profiled(OPERATORS, FIT, sheet=SHEET),
    "grid": Profiled(OPERATORS, GRID, sheet=SHEET),
    "calibrated": Metered(LINEAR, SHEET),
    "pipeline": Pipelined(SHEET, LLAMA, H100, stages=2, step_tokens=512),
}
DEVICES = dict.fromkeys(COSTS, 1) | {"pipeline": 2}

decodes = st.builds(
    lambda n, each: StepShape(decodes=n, decode_context_tokens=n * each, emits=n),
    st.integers(1, 256),
    st.integers(1, 8000),
)
prompts = st.builds(
    lambda chunk, kv: StepShape(
        prefills=1, prefill_tokens=chunk, prefill_attended_tokens=chunk * kv + chunk * (chunk + 1) // 2
    ),
    st.integers(1, 2048),
    st.integers(0, 4000),
)
mixtures = st.builds(
    lambda decode, prompt: replace(
        prompt, decodes=decode.decodes, decode_context_tokens=decode.decode_context_tokens, emits=decode.emits
    ),
    decodes,
    prompts,
)


@pytest.mark.parametrize("quality", COSTS)
@given(shape=decodes | prompts | mixtures)
def test_power_is_between_idle_and_full(quality: str, shape: StepShape) -> None:
    cost = COSTS[quality]
    watts = cost.step_j(shape) / cost.step_s(shape) / DEVICES[quality]
    assert H100.idle_w is not None
    assert H100.tdp_w is not None
    assert H100.idle_w * (1 - 1e-9) <= watts <= H100.tdp_w * (1 + 1e-9)


@pytest.mark.parametrize("quality", ["roofline", "fit", "calibrated", "pipeline"])
@given(shape=decodes | prompts | mixtures, more=st.integers(1, 500))
def test_more_to_do_never_draws_less(quality: str, shape: StepShape, more: int) -> None:
    step_j = COSTS[quality].step_j
    longer = replace(shape, decode_context_tokens=shape.decode_context_tokens + more * shape.decodes)
    further = replace(
        longer, prefill_attended_tokens=longer.prefill_attended_tokens + more * longer.prefill_tokens
    )
    assert step_j(shape) <= step_j(longer) * (1 + 1e-12) <= step_j(further) * (1 + 2e-12)


@pytest.mark.parametrize("quality", ["roofline", "fit", "calibrated"])
@given(shape=decodes | prompts, count=st.integers(0, 300))
def test_a_run_draws_what_its_steps_draw(quality: str, shape: StepShape, count: int) -> None:
    cost = COSTS[quality]
    each = sum(cost.step_j(later(shape, step)) for step in range(count))
    assert run_j(cost, shape, count) == pytest.approx(each, rel=1e-9)


def test_a_run_that_bends_is_added_up_in_a_few_prices() -> None:
    asked = []

    class Bent:
        def step_s(self, shape: StepShape) -> float:
            return 1.0

        def step_j(self, shape: StepShape) -> float:
            asked.append(shape)
            return max(1000.0, float(shape.decode_context_tokens))

    shape = StepShape(decodes=1, decode_context_tokens=1)
    assert run_j(Bent(), shape, 10_000) == pytest.approx(1000 * 1000 + sum(range(1001, 10_001)))
    assert len(asked) < 60
    assert run_j(Bent(), shape, 0) == 0


def test_lengths_grow_only_where_they_are_counted() -> None:
    shape = StepShape(
        decodes=2, decode_context_tokens=30, decode_longest_tokens=20, decode_shortest_tokens=10
    )
    assert later(shape, 3) == StepShape(
        decodes=2, decode_context_tokens=36, decode_longest_tokens=23, decode_shortest_tokens=13
    )
    assert later(replace(shape, decode_longest_tokens=0, decode_shortest_tokens=0), 3) == StepShape(
        decodes=2, decode_context_tokens=36
    )


def test_every_quality_says_where_its_joules_come_from() -> None:
    assert all(energy_source(cost) == ESTIMATED for cost in COSTS.values())
    assert energy_source(Scaled(SHEET, 1.1)) == ESTIMATED
    assert energy_source(replace(LINEAR, power_w=300.0)) == MEASURED
    assert energy_source(LINEAR) == energy_source(Profiled(OPERATORS, FIT)) == UNKNOWN
    unknown = Roofline(LLAMA, device("rtx-4090"))
    assert energy_source(unknown) == UNKNOWN
    assert isnan(run_j(unknown, StepShape(decodes=1, decode_context_tokens=1), 5))


def test_a_calibration_is_metered_by_the_data_sheet() -> None:
    metered, shape = COSTS["calibrated"], StepShape(decodes=1, decode_context_tokens=10, emits=1)
    assert isinstance(metered, Metered)
    assert metered.step_s(shape) == LINEAR.step_s(shape)
    assert metered.price_per_h == H100.price_per_h
    assert metered.expected_error == "not measured"
    assert not metered.needs_lengths
    assert metered.straight(shape, shape) > 10**6
    assert Metered(COSTS["grid"], SHEET).straight(shape, later(shape, 1)) == 1015

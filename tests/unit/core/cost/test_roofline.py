from __future__ import annotations

import csv
from math import isnan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.core.catalogue import DEVICES, MODELS, device, model
from millrace.core.cost import Roofline, StepShape, efficiency_of
from millrace.core.cost.efficiency import TYPICAL
from millrace.core.cost.shape import ENDLESS

FLEETS = [
    ("llama-3-8b", "a100-80g", 1),
    ("llama-3-70b", "h100", 4),
    ("mixtral-8x7b", "h200", 2),
    ("deepseek-v3", "h200", 8),
    ("qwen3-32b", "mi300x", 1),
    ("demo", "cpu", 1),
]
Rows = list[dict[str, str]]
alone = st.builds(StepShape, st.integers(0, 300), st.integers(0, 10**6))
mixed = st.builds(
    StepShape,
    st.integers(0, 300),
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(1, 4096),
    st.integers(0, 10**8),
    st.integers(0, 300),
)
shapes = alone | mixed


def roofline(name: str, on: str, tensor_parallel: int = 1) -> Roofline:
    return Roofline(model(name), device(on), tensor_parallel=tensor_parallel)


def decode(sequences: int, context: int) -> StepShape:
    return StepShape(decodes=sequences, decode_context_tokens=sequences * context, emits=sequences)


def prefill(tokens: int) -> StepShape:
    return StepShape(
        prefills=1, prefill_tokens=tokens, prefill_attended_tokens=tokens * (tokens + 1) // 2, emits=1
    )


def measured(file: str) -> Rows:
    lines = (Path(__file__).parent / file).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def one_layer(row: dict[str, str]) -> Roofline:
    return Roofline(replace(model(row["model"]), layers=1), device(row["device"]), host_s=0)


def projections_s(priced: Roofline, tokens: int) -> float:
    """A layer without its attention: what a prompt that looks at nothing takes."""
    shape = StepShape(prefills=1, prefill_tokens=tokens)
    return priced.step_s(shape) - priced.efficiency.prefill_s


@pytest.mark.parametrize(
    ("on", "limit"), [("a100-80g", 0.06), ("h100", 0.09), ("rtx-4090", 0.05), ("rtx-pro-6000", 0.05)]
)
def test_layers_take_as_long_as_they_were_measured_to(on: str, limit: float) -> None:
    rows = [row for row in measured("measured_layers.csv") if row["device"] == on]
    errors = [abs(projections_s(one_layer(r), int(r["tokens"])) / float(r["seconds"]) - 1) for r in rows]
    assert len(rows) >= 6
    assert sum(errors) / len(errors) < limit


@pytest.mark.parametrize(("mixed", "limit"), [(False, 0.12), (True, 0.25)])
def test_attention_takes_as_long_as_it_was_measured_to(mixed: bool, limit: float) -> None:
    errors = []
    for row in measured("measured_attention.csv"):
        chunk, cached, decodes, each = (int(row[c]) for c in ("chunk", "cached", "decodes", "context_each"))
        if mixed != (chunk > 0 and decodes > 0):
            continue
        pairs = chunk * cached + chunk * (chunk + 1) // 2
        shape = StepShape(decodes, decodes * each, int(chunk > 0), chunk, pairs)
        priced = one_layer(row)
        attention_s = priced.step_s(shape) - projections_s(priced, shape.tokens)
        errors.append(abs(attention_s / float(row["seconds"]) - 1))
    assert sum(errors) / len(errors) < limit


@pytest.mark.parametrize(
    ("name", "on", "low_ms", "high_ms"), [("llama-3-8b", "a100-80g", 9, 13), ("llama-3-8b", "h100", 5, 8)]
)
def test_a_lone_decode_takes_what_reading_the_weights_takes_and_little_more(
    name: str, on: str, low_ms: float, high_ms: float
) -> None:
    seconds = roofline(name, on).step_s(decode(1, 1000))
    assert low_ms / 1e3 < seconds < high_ms / 1e3
    assert seconds > model(name).weight_bytes / device(on).memory_bytes_per_s


@pytest.mark.parametrize(("name", "on", "tensor_parallel"), FLEETS)
def test_no_step_is_faster_than_its_operations_on_the_data_sheet(
    name: str, on: str, tensor_parallel: int
) -> None:
    peak = (device(on).fp8_flops or device(on).flops) * tensor_parallel
    seconds = roofline(name, on, tensor_parallel).step_s(prefill(4096))
    assert seconds > 4096 * model(name).flops_per_token / peak


@pytest.mark.parametrize("fleet", FLEETS)
@given(shape=shapes)
def test_the_price_is_affine_in_what_is_attended_to(fleet: tuple[str, str, int], shape: StepShape) -> None:
    priced = roofline(*fleet)

    def at(share: int) -> float:
        context, attended = shape.decode_context_tokens * share, shape.prefill_attended_tokens * share
        return priced.step_s(replace(shape, decode_context_tokens=context, prefill_attended_tokens=attended))

    assert at(1) - at(0) == pytest.approx(at(2) - at(1), rel=1e-6, abs=1e-12)
    assert at(1) >= at(0)


@pytest.mark.parametrize(("name", "on", "tensor_parallel"), FLEETS)
def test_more_work_never_takes_less_time(name: str, on: str, tensor_parallel: int) -> None:
    priced = roofline(name, on, tensor_parallel)
    for shapes in (
        [decode(n, 500) for n in (1, 2, 8, 64, 256)],
        [prefill(n) for n in (1, 16, 128, 1024, 8192)],
    ):
        seconds = [priced.step_s(shape) for shape in shapes]
        assert seconds == sorted(seconds)


def test_an_empty_step_costs_nothing() -> None:
    priced = roofline("llama-3-8b", "h100")
    assert priced.step_s(StepShape()) == priced.step_j(StepShape()) == 0.0


def test_sampling_is_paid_for_the_sequences_that_emit() -> None:
    priced = roofline("llama-3-8b", "h100")
    silent, speaking = (
        StepShape(prefills=1, prefill_tokens=512),
        StepShape(prefills=1, prefill_tokens=512, emits=1),
    )
    head_s = 2 * model("llama-3-8b").head_weights / device("h100").memory_bytes_per_s
    assert priced.step_s(speaking) - priced.step_s(silent) > 0.9 * head_s


def test_decodes_cost_more_beside_a_prompt_than_alone() -> None:
    priced = roofline("llama-3-8b", "a100-80g")
    alone = priced.step_s(decode(64, 4000)) - priced.step_s(decode(64, 0))
    beside = priced.step_s(StepShape(64, 64 * 4000, 1, 256)) - priced.step_s(StepShape(64, 0, 1, 256))
    assert 1.5 * alone < beside < 4 * alone


def test_latent_attention_decodes_no_slower_beside_a_prompt() -> None:
    priced = roofline("deepseek-v3", "h200", 8)
    alone = priced.step_s(decode(64, 4000)) - priced.step_s(decode(64, 0))
    beside = priced.step_s(StepShape(64, 64 * 4000, 1, 256)) - priced.step_s(StepShape(64, 0, 1, 256))
    assert beside == pytest.approx(alone)


def test_short_chunks_use_a_device_badly() -> None:
    priced = roofline("llama-3-8b", "h100")
    short = priced.step_s(StepShape(0, 0, 1, 32, 10**7)) - priced.step_s(StepShape(0, 0, 1, 32, 0))
    long = priced.step_s(StepShape(0, 0, 1, 1024, 10**7)) - priced.step_s(StepShape(0, 0, 1, 1024, 0))
    assert short > 5 * long


def test_a_larger_batch_wakes_more_experts_until_all_are_awake() -> None:
    priced = roofline("mixtral-8x7b", "h100", 2)
    one, few, many, more = (priced.step_s(decode(n, 0)) for n in (1, 4, 32, 40))
    assert few > 1.8 * one
    assert more < 1.1 * many


def test_tensor_parallelism_divides_the_work_and_adds_all_reduces() -> None:
    one, four = roofline("llama-3-8b", "h100", 1), roofline("llama-3-8b", "h100", 4)
    assert one.step_s(prefill(4096)) / 4 < four.step_s(prefill(4096)) < one.step_s(prefill(4096)) / 2
    free = replace(efficiency_of("h100"), all_reduce_s=0, link=1e9)
    silent = Roofline(model("llama-3-8b"), device("h100"), tensor_parallel=4, efficiency=free)
    reduced_s = four.step_s(decode(1, 1)) - silent.step_s(decode(1, 1))
    summed, gathered = 2 * 32 + 1, 1  # every layer's attention and MLP, and the embedding; the logits
    assert reduced_s == pytest.approx((summed + gathered) * 5e-6, rel=0.01)


def test_experts_spread_over_ranks_cost_each_less_and_the_way_there() -> None:
    spec, on = model("mixtral-8x7b"), device("h200")
    one, two = Roofline(spec, on), Roofline(spec, on, data_parallel=2)
    free = replace(efficiency_of("h200"), all_reduce_s=0, link=1e9)
    silent = Roofline(spec, on, data_parallel=2, efficiency=free)
    assert silent.experts_s(64) == pytest.approx(one.experts_s(64) / 2, rel=1e-3)
    assert two.experts_s(64) > silent.experts_s(64) + 32 * 2 * 5e-6
    assert one.own_s(decode(64, 100)) == two.own_s(decode(64, 100))
    assert one.experts_s(0) == one.head_s(0) == roofline("llama-3-8b", "h100").experts_s(64) == 0


def test_a_rank_draws_for_the_experts_of_all_tokens_and_for_its_own_of_the_rest() -> None:
    sheet = Roofline(model("mixtral-8x7b"), device("h200"), data_parallel=2)
    shape = decode(64, 100)
    seconds = 2 * sheet.step_s(shape)
    own_j, both_j = sheet.rank_j(shape, 64, seconds), sheet.rank_j(shape, 128, seconds)
    waiting_j = sheet.rank_j(StepShape(), 64, seconds)
    assert sheet.rank_j(shape, 64, sheet.step_s(shape)) == sheet.step_j(shape)
    assert seconds * sheet.power_w(StepShape(), 0.0) < waiting_j < own_j <= both_j


def test_a_price_by_the_hour_is_that_of_all_devices() -> None:
    assert roofline("llama-3-70b", "h100", 4).price_per_h == 4 * 3.99
    assert roofline("demo", "cpu").price_per_h is None


def test_an_idle_device_draws_its_idle_power() -> None:
    assert roofline("llama-3-8b", "h100").power_w(StepShape(), 0.0) == 121.7


def test_its_price_never_bends() -> None:
    priced, shape = roofline("llama-3-8b", "h100"), decode(8, 100)
    assert (priced.straight(shape, shape), priced.needs_lengths) == (ENDLESS, False)


def test_the_host_is_paid_once_a_step() -> None:
    slow = Roofline(model("demo"), device("cpu"), host_s=0.01)
    fast = Roofline(model("demo"), device("cpu"), host_s=0)
    assert slow.step_s(decode(3, 9)) - fast.step_s(decode(3, 9)) == pytest.approx(0.01)


def test_eight_bit_weights_are_multiplied_faster_where_the_device_can() -> None:
    fp8 = replace(model("llama-3-8b"), weight_bytes_each=1)
    on_h100, on_a100 = Roofline(fp8, device("h100")), Roofline(fp8, device("a100-80g"))
    assert on_h100.step_s(prefill(8192)) < 0.65 * roofline("llama-3-8b", "h100").step_s(prefill(8192))
    assert on_a100.step_s(prefill(8192)) > 0.9 * roofline("llama-3-8b", "a100-80g").step_s(prefill(8192))


def test_power_lies_between_idle_and_design_and_prompts_draw_most() -> None:
    for on in ("a100-80g", "h100", "l40s"):
        priced, spec = roofline("llama-3-8b", on), device(on)
        watts = [priced.step_j(s) / priced.step_s(s) for s in (decode(1, 10), prefill(8192))]
        assert (spec.idle_w or 0) < watts[0] < watts[1] <= (spec.tdp_w or 0)


def test_every_device_of_a_replica_draws_power() -> None:
    four, shape = roofline("llama-3-70b", "h100", 4), decode(1, 100)
    assert 4 * 121.7 < four.step_j(shape) / four.step_s(shape) < 4 * 700


def test_experts_count_in_the_power_too() -> None:
    priced = roofline("mixtral-8x7b", "h100", 2)
    assert priced.step_j(prefill(4096)) / priced.step_s(prefill(4096)) > 2 * 400


def test_a_device_without_known_power_draws_an_unknown_amount() -> None:
    assert isnan(roofline("demo", "cpu").step_j(decode(1, 1)))
    assert isnan(roofline("llama-3-8b", "mi300x").step_j(decode(1, 1)))


def test_a_split_that_does_not_divide_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="tensor_parallel is 3; it must divide the 32 heads of llama-3-8b"):
        roofline("llama-3-8b", "h100", 3)
    with pytest.raises(ValueError, match="tensor_parallel is 0"):
        roofline("llama-3-8b", "h100", 0)
    with pytest.raises(ValueError, match="a cpu has no link to another"):
        roofline("demo", "cpu", 2)


def test_every_model_can_be_priced_on_every_device_and_says_how_well() -> None:
    for name in MODELS:
        for on in DEVICES:
            priced = roofline(name, on)
            assert priced.step_s(decode(8, 100)) > 0
            assert priced.expected_error
    assert efficiency_of("mi300x") is TYPICAL
    assert efficiency_of("l40s").compute == TYPICAL.compute
    assert not TYPICAL.calibrated
    assert "uncalibrated" in roofline("demo", "cpu").expected_error

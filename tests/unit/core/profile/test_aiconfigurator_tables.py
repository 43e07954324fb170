from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device
from millrace.core.cost import StepShape
from millrace.core.model import ModelSpec
from millrace.core.profile import Setup
from millrace.core.profile.aiconfigurator import Products, attention, collective, operators, profiled

Rows = list[dict[str, Any]]

SMALL = ModelSpec(
    name="small",
    layers=4,
    hidden=1024,
    heads=8,
    kv_heads=2,
    head_dim=128,
    ffn=3072,
    vocab=32_000,
    context_tokens=4096,
    source="made up",
)
MIXTURE = replace(SMALL, name="mixture", experts=16, active_experts=2, expert_ffn=512)
SETUP = Setup(model=SMALL, device=device("h100"))
PRODUCTS: Rows = [
    {"m": m, "n": n, "k": k, "latency": 0.01 + m * n * k * 1e-12, "kernel_source": "any"}
    for m in (1, 64, 4096)
    for n in (16, 1024, 2048, 65_536)
    for k in (512, 1024, 4096)
]
PROMPTS: Rows = [
    {"batch_size": b, "isl": s, "step": 0, "latency": 0.01 + b * s * 1e-6 + b * s * (s + 1) / 2 * 1e-9}
    for b in (1, 2, 4, 8)
    for s in (16, 128, 1024, 4096)
]
DECODES: Rows = [
    {"batch_size": b, "isl": 1, "step": s, "latency": 0.02 + b * 1e-4 + b * (s + 1) * 1e-7}
    for b in (1, 8, 64, 256)
    for s in (127, 1023, 4095, 16_383)
]
EXPERTS: Rows = [{"num_tokens": n, "latency": 0.1 + n * 1e-3} for n in (1, 128, 1024)]


def test_a_product_that_was_timed_is_what_it_was_timed_at() -> None:
    assert Products(PRODUCTS).curve(2048, 1024).at(64) == pytest.approx(1e-5 + 64 * 2048 * 1024 * 1e-15)


@pytest.mark.parametrize(("n", "k"), [(1536, 1024), (2048, 700), (3000, 3000), (130_000, 4096), (8, 256)])
def test_others_lie_on_lines_between_and_beyond(n: int, k: int) -> None:
    assert Products(PRODUCTS).curve(n, k).at(512) == pytest.approx(1e-5 + 512 * n * k * 1e-15, rel=1e-6)


def test_a_table_of_one_width_knows_no_other() -> None:
    (only,) = [row for row in PRODUCTS if (row["m"], row["n"], row["k"]) == (64, 1024, 1024)]
    assert Products([only]).curve(5000, 5000).at(9) == pytest.approx(1e-5 + 64 * 1024 * 1024 * 1e-15)


def test_layers_are_their_products_and_small_kernels() -> None:
    found = operators(SETUP, PRODUCTS)
    four = 4 * 4 * 1e-5 + 64 * 4 * 1e-15 * 1024 * (1536 + 1024 + 2 * 3072 + 3072)
    small_s = found.dense.at(64) - four
    assert 4 * 5 * 3e-6 < small_s < 4 * 5 * 3e-6 + 1e-5
    assert found.head.at(64) > 64 * 32_000 * 1024 * 1e-15
    assert found.experts is None


def test_two_devices_split_the_products_and_sum_up() -> None:
    one, two = (operators(replace(SETUP, tensor_parallel=n), PRODUCTS) for n in (1, 2))
    assert two.dense.at(4096) < 0.8 * one.dense.at(4096)
    assert two.exchange.start_s > 0 == one.exchange.start_s


def test_attention_is_found_again_and_mixed_decodes_cost_twice_as_much() -> None:
    found = attention(PROMPTS, DECODES, layers=4)
    assert found.decode.per_context_s == pytest.approx(4e-10, rel=0.01)
    assert found.mixed.per_pair_s == pytest.approx(4e-12, rel=0.01)
    assert found.mixed.per_context_s == 2 * found.decode.per_context_s
    assert found.error is not None
    assert found.error.mean < 0.01
    assert found.error.held_out == 6


def test_heads_that_were_not_timed_are_named() -> None:
    with pytest.raises(ValueError, match="the tables have 0 prompts with the model's heads; take its roof"):
        attention([], DECODES, layers=4)
    with pytest.raises(ValueError, match="the tables have 1 decodes"):
        attention(PROMPTS, DECODES[:1], layers=4)


def test_experts_are_those_of_the_model() -> None:
    setup = replace(SETUP, model=MIXTURE)
    cost = profiled(setup, products=PRODUCTS, prompts=PROMPTS, decodes=DECODES, experts=EXPERTS)
    assert cost.experts_s(128) == pytest.approx(4 * (1e-4 + 128e-6))
    dense_s = cost.operators.dense.at(64)
    assert dense_s < operators(SETUP, PRODUCTS).dense.at(64)
    with pytest.raises(ValueError, match="no experts like those of mixture: hidden 1024, width 512, 2 of 16"):
        operators(setup, PRODUCTS)


def test_the_cost_model_has_the_power_and_the_price_of_the_data_sheet() -> None:
    cost = profiled(SETUP, products=PRODUCTS, prompts=PROMPTS, decodes=DECODES)
    shape = StepShape(decodes=4, decode_context_tokens=4000, emits=4)
    assert 121.7 <= cost.step_j(shape) / cost.step_s(shape) <= 700
    assert cost.price_per_h == device("h100").price_per_h
    assert cost.expected_error.startswith("attention fitted, mean 0.")


def test_collectives_are_fitted_to_sizes_that_steps_send() -> None:
    def timed(start_ms: float, byte_ms: float) -> Rows:
        return [{"message_size": 2**n, "latency": start_ms + 2**n * byte_ms} for n in range(16, 27)]

    small = [{"message_size": 8, "latency": 99.0}]
    found = collective(timed(0.01, 1e-7) + small, timed(0.01, 6e-8), 2)
    assert (found.start_s, found.per_byte_s) == pytest.approx((1e-5, 1e-10), rel=0.01)
    assert found.gather == pytest.approx(0.6, rel=0.01)
    assert collective(timed(0.01, 1e-7), [], 2).gather == 0.5


def test_a_table_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"missing required field `k`.*another version of aiconfigurator"):
        Products([{"m": 1, "n": 2, "latency": 3.0}])

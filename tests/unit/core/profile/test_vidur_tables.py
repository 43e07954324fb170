from __future__ import annotations

import pytest

from millrace.core.catalogue import device, model
from millrace.core.cost import StepShape
from millrace.core.profile import Setup, vidur

LLAMA = model("llama-2-7b")
OPS = ("attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj")
MORE = ("emb", "input_layernorm", "post_attention_layernorm", "add")
KEYS = "num_tokens,num_tensor_parallel_workers"


def table(*rows: str, ops: tuple[str, ...] = OPS) -> list[str]:
    return [",".join([*(f"time_stats.{op}.mean" for op in ops), KEYS]), *rows]


def message(workers: int, per_node: int, size: int, milliseconds: float) -> str:
    return f"{milliseconds},{workers},{per_node},{size}"


def test_a_layer_is_its_products_and_all_between_in_milliseconds() -> None:
    lines = table("1,1,1,1,1,1,8,1", "2,2,2,2,2,2,16,1")
    found = vidur.read_layers(lines, LLAMA, 1)
    assert [found.at(n) for n in (8, 16)] == pytest.approx([32 * 6e-3, 32 * 12e-3])


def test_norms_and_two_sums_count_where_they_were_timed_and_the_embedding_once() -> None:
    lines = table("0,0,0,0,0,0,3,1,1,1,8,1", ops=OPS + MORE)
    assert vidur.read_layers(lines, LLAMA, 1).at(8) == pytest.approx(32 * 4e-3 + 3e-3)


def test_what_was_timed_twice_counts_as_its_mean() -> None:
    lines = table("1,0,0,0,0,0,8,1", "3,0,0,0,0,0,8,1")
    assert vidur.read_layers(lines, LLAMA, 1).at(8) == pytest.approx(32 * 2e-3)


def test_a_degree_without_times_is_refused() -> None:
    lines = table("1,0,0,0,0,0,8,1", "1,0,0,0,0,0,8,4")
    with pytest.raises(ValueError, match="tensor_parallel is 2; there are times for 1, 4"):
        vidur.read_layers(lines, LLAMA, 2)


def test_only_all_reduces_within_a_node_and_of_a_step_s_size_are_fitted() -> None:
    head = "time_stats.all_reduce.median,num_workers,devices_per_node,size"
    fitting = [message(4, 4, 2**n, 0.03 + 2**n / 1e8) for n in range(10, 27)]
    others = [message(2, 2, 1024, 9.0), message(4, 2, 1024, 9.0), message(4, 4, 2**29, 900.0)]
    found = vidur.read_all_reduce([head, *fitting, *others], 4)
    assert (found.start_s, found.per_byte_s) == pytest.approx((3e-5, 1e-11), rel=1e-3)
    with pytest.raises(ValueError, match="an all-reduce over 8 devices was timed at 0 sizes"):
        vidur.read_all_reduce([head, *fitting], 8)


def test_what_was_not_timed_is_the_data_sheet_s() -> None:
    setup = Setup(model=LLAMA, device=device("a100-80g"), host_s=0.5)
    dense = vidur.read_layers(table("1,1,1,1,1,1,1,1", "2,2,2,2,2,2,100,1"), LLAMA, 1)
    priced, shape = vidur.profiled(dense, setup), StepShape(32, 32_000, emits=32)
    sheet = setup.sheet
    parts_s = 0.5 + dense.at(32) + sheet.attention_s(shape) + sheet.head_s(32)
    assert priced.step_s(shape) == pytest.approx(parts_s)
    assert priced.expected_error == sheet.expected_error
    assert priced.price_per_h == 1.79

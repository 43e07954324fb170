from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import StepShape
from millrace.core.profile import Setup
from millrace.data.aiconfigurator import find_tables, open_collective, open_operators, read_rows

LLAMA = Setup(model=model("llama-3-8b"), device=device("h100"))
MIXTRAL = Setup(model=model("mixtral-8x7b"), device=device("h100"), tensor_parallel=2)
PRODUCT = {"gemm_dtype": "bfloat16", "framework": "VLLM"}
HEADS = {"head_dim": 128, "kv_cache_dtype": "bfloat16", "window_size": 0}
ROUTED = {
    "moe_dtype": "bfloat16",
    "hidden_size": 4096,
    "inter_size": 14_336,
    "topk": 2,
    "num_experts": 8,
    "moe_tp_size": 2,
    "moe_ep_size": 1,
    "distribution": "balanced",
}


def products() -> list[dict[str, Any]]:
    shapes = [(m, n, k) for m in (1, 64, 2048) for n in (1024, 65_536) for k in (1024, 16_384)]
    return [PRODUCT | {"m": m, "n": n, "k": k, "latency": 0.01 + m * n * k * 3e-12} for m, n, k in shapes]


def batches(heads: int, kv_heads: int, steps: tuple[int, ...]) -> list[dict[str, Any]]:
    """Prompts (`steps` 0), or decodes on top of so many tokens."""
    named = HEADS | {"num_heads": heads, "num_key_value_heads": kv_heads}
    return [
        named | {"batch_size": b, "isl": 1 if step else 64 * b, "step": step, "latency": 0.01 * b}
        for b in (1, 2, 4, 8, 16)
        for step in steps
    ]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder like the package's, with next to nothing in it; an older version of it has nothing at all."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nccl = [
        {"op_name": name, "num_gpus": 2, "nccl_dtype": "half", "message_size": 2**n, "latency": 2**n * 1e-7}
        for name in ("all_reduce", "all_gather", "reduce_scatter")
        for n in (16, 18, 20)
    ]
    prompts = batches(32, 8, (0,)) * 2 + batches(16, 4, (0,)) * 2
    decodes = batches(32, 8, (127, 1023)) + batches(16, 4, (127, 1023))
    written = {
        "gemm/vllm/0.24.0/gemm": products(),
        "gemm/vllm/0.9.0/gemm": [PRODUCT | {"m": 1, "n": 1, "k": 1, "latency": 1e9}],
        "attention/vllm/0.24.0/context_attention": prompts,
        "attention/vllm/0.24.0/generation_attention": decodes,
        "moe/vllm/0.24.0/moe": [ROUTED | {"num_tokens": n, "latency": 1.0 + n} for n in (1, 1024)],
        "comm/nccl/2.29.2/nccl": nccl,
    }
    for name, rows in written.items():
        path = tmp_path / "h100_sxm" / f"{name}_perf.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    return tmp_path


def test_steps_are_priced_by_the_newest_tables(tables: Path) -> None:
    cost = open_operators(LLAMA, tables)
    one = cost.step_s(StepShape(decodes=1, decode_context_tokens=100, emits=1))
    prompt = cost.step_s(StepShape(prefills=1, prefill_tokens=2048, prefill_attended_tokens=2048 * 1024))
    assert 0.001 < one < prompt < 1


def test_experts_are_read_as_the_setup_splits_them(tables: Path) -> None:
    cost = open_operators(MIXTRAL, tables)
    assert cost.operators.experts is not None
    assert cost.experts_s(1024) == pytest.approx(32 * 1.025, rel=1e-6)
    with pytest.raises(ValueError, match="no experts like those of mixtral-8x7b"):
        open_operators(replace(MIXTRAL, expert_parallel=True), tables)


def test_collectives_are_read(tables: Path) -> None:
    assert open_collective(device("h100"), 2, tables).per_byte_s == pytest.approx(1e-10, rel=1e-3)
    with pytest.raises(ValueError, match="an all-reduce over 4 devices was timed at 0 sizes"):
        open_collective(device("h100"), 4, tables)


def test_what_the_tables_lack_is_named(tables: Path) -> None:
    with pytest.raises(
        ValueError, match="AIConfigurator has no tables of rtx-4090; it has those of a100-80g"
    ):
        open_operators(replace(LLAMA, device=device("rtx-4090")), tables)
    with pytest.raises(ValueError, match="deepseek-v3 has latent attention"):
        open_operators(replace(LLAMA, model=model("deepseek-v3")), tables)
    with pytest.raises(ValueError, match=r"a100_sxm/gemm/vllm/VERSION/gemm_perf\.parquet is not there"):
        open_operators(replace(LLAMA, device=device("a100-80g")), tables)
    gemm = tables / "h100_sxm" / "gemm" / "vllm" / "0.24.0" / "gemm_perf.parquet"
    with pytest.raises(ValueError, match=r"gemm_perf\.parquet: .*colour[\s\S]*another version"):
        read_rows(gemm, {"colour": "red"})
    assert len(read_rows(gemm, {})) == 12


def test_the_tables_of_the_package_price_a_step() -> None:
    if not (find_spec("aiconfigurator_core") and find_spec("pyarrow")):
        with pytest.raises(ValueError, match=r"pip install 'millrace\[aiconfigurator\]'"):
            open_operators(LLAMA)
        pytest.skip("aiconfigurator-core and pyarrow are not both installed")
    assert find_tables().is_dir()
    step = StepShape(decodes=32, decode_context_tokens=32 * 1024, emits=32)
    assert open_operators(LLAMA).step_s(step) == pytest.approx(LLAMA.sheet.step_s(step), rel=0.3)


def test_what_is_not_installed_is_named_with_its_fix(tmp_path: Path) -> None:
    if find_spec("pyarrow") is None:
        with pytest.raises(ValueError, match=r"pyarrow is not here; install them: pip install 'millrace"):
            read_rows(tmp_path / "gemm_perf.parquet", {})
    else:
        with pytest.raises((ValueError, OSError)):
            read_rows(tmp_path / "gemm_perf.parquet", {})

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.profile import Setup
from millrace.data.profiles import (
    open_all_reduce,
    open_description,
    open_engine,
    open_fitted,
    open_layers,
    open_model,
    open_requests,
    open_serving,
    says_profile,
)

SHIPPED = Path(__file__).parents[2] / "data"
SERVING = SHIPPED / "profiles" / "serving" / "RTXPRO6000" / "meta-llama" / "Llama-3.1-8B" / "bf16"
LLAMA = model("llama-3-8b")
MIXTURE = replace(LLAMA, experts=8, active_experts=2, expert_ffn=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a profile that a test may change."""
    return Path(shutil.copytree(SERVING, tmp_path / "bf16"))


def test_a_profile_is_read_whole() -> None:
    tables = open_serving(SERVING, LLAMA)
    assert open_description(SERVING).gpu == "NVIDIA RTX PRO 6000 Blackwell Server Edition"
    assert len(tables.attention) == 19_364
    # What reading all weights at 1.792 TB/s takes, and a tenth to spare.
    read_s = 2 * (LLAMA.dense_weights + LLAMA.head_weights) / 1.792e12
    assert read_s < tables.dense.at(1) + tables.head.at(1) < 1.3 * read_s
    assert tables.skew is not None
    assert (tables.skew.default, len(tables.skew.alphas), tables.experts) == (0.0543, 3982, None)


def test_a_profile_that_says_so_is_not_corrected_for_skew(folder: Path) -> None:
    settings = (
        (folder / "meta.yaml")
        .read_text()
        .replace("skew_fit:\n  enabled: true", "skew_fit:\n  enabled: false")
    )
    (folder / "meta.yaml").write_text(settings)
    (folder / "tp1" / "skew_fit.csv.gz").unlink()
    assert open_serving(folder, LLAMA).skew is None


def test_tables_may_be_compressed_or_not(folder: Path) -> None:
    packed = folder / "tp1" / "per_sequence.csv.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert open_serving(folder, LLAMA).head == open_serving(SERVING, LLAMA).head


def test_experts_were_timed_on_one_device_or_on_as_many(folder: Path) -> None:
    shutil.copytree(folder / "tp1", folder / "tp2")
    (folder / "tp1" / "moe.csv").write_text("tokens,activated_experts,time_us\n1,2,50\n")
    spread = open_serving(folder, MIXTURE, 2).experts
    assert spread is not None
    assert spread[1].at(2) == pytest.approx(32 * 50e-6)
    (folder / "tp2" / "moe.csv").write_text("tokens,activated_experts,time_us\n1,2,30\n")
    assert open_serving(folder, MIXTURE, 2).experts != spread


def test_a_missing_table_is_named(folder: Path) -> None:
    (folder / "tp1" / "dense.csv.gz").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*dense\.csv, nor dense\.csv\.gz"):
        open_serving(folder, LLAMA)


def test_a_degree_that_was_not_timed_is_refused_with_those_that_were(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no times for tensor_parallel 4; there is tp1"):
        open_serving(folder, LLAMA, 4)
    shutil.rmtree(folder / "tp1")
    with pytest.raises(ValueError, match="there is no folder tpN at all"):
        open_serving(folder, LLAMA)


@pytest.mark.parametrize("damage", [b"layer,tokens,time_us\nconv,1,1\n", b"\xff\xfe", b""])
def test_a_broken_table_is_named(folder: Path, damage: bytes) -> None:
    (folder / "tp1" / "dense.csv.gz").write_bytes(gzip.compress(damage))
    with pytest.raises(ValueError, match=r"dense\.csv\.gz: "):
        open_serving(folder, LLAMA)


@pytest.mark.parametrize("damage", [b"not compressed", gzip.compress(b"x" * 100, mtime=0)[:20]])
def test_a_file_that_cannot_be_unpacked_is_named(folder: Path, damage: bytes) -> None:
    (folder / "tp1" / "dense.csv.gz").write_bytes(damage)
    with pytest.raises(ValueError, match=r"dense\.csv\.gz: "):
        open_serving(folder, LLAMA)


def test_a_recorded_run_is_read_whole() -> None:
    folder = SHIPPED / "runs" / "RTX4090" / "Llama-3.1-8B"
    engine, requests = open_engine(folder), open_requests(folder)
    assert (engine.model, engine.vllm_version) == ("meta-llama/Llama-3.1-8B", "0.19.0")
    assert engine.kv_cache.num_gpu_blocks == 2588
    assert (len(requests), requests[0].arrived_s) == (300, 0.0)
    assert sum(each.output_tokens for each in requests) == 195_753


def test_a_model_is_known_by_the_name_of_its_file(tmp_path: Path) -> None:
    spec = open_model(SHIPPED / "profiles" / "models" / "Llama-3.1-8B.json")
    assert (spec.name, spec.layers, spec.kv_heads) == ("Llama-3.1-8B", 32, 8)
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(ValueError, match=r"broken\.json: is not a config\.json"):
        open_model(tmp_path / "broken.json")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*meta\.json"):
        open_engine(tmp_path)
    (tmp_path / "requests.jsonl").write_text(json.dumps({"request_id": "a"}))
    with pytest.raises(ValueError, match=r"requests\.jsonl: line 1: "):
        open_requests(tmp_path)


def test_tables_of_vidur_are_read(tmp_path: Path) -> None:
    ops = ("attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj")
    names = ",".join(f"time_stats.{op}.mean" for op in ops)
    layers = tmp_path / "mlp.csv"
    layers.write_text(f"{names},num_tokens,num_tensor_parallel_workers\n1,1,1,1,1,1,8,1\n1,1,1,1,1,1,16,1\n")
    priced = open_layers(layers, Setup(model=LLAMA, device=device("a100-80g")))
    assert priced.operators.dense.at(8) == pytest.approx(32 * 6e-3)
    sums = tmp_path / "all_reduce.csv"
    sums.write_text(
        "time_stats.all_reduce.median,num_workers,devices_per_node,size\n1,2,2,1000\n2,2,2,2000\n"
    )
    assert open_all_reduce(sums, 2).all_reduce_s(3000) == pytest.approx(3e-3)


def test_a_profile_that_was_written_down_is_read_again(tmp_path: Path) -> None:
    fit = open_serving(SERVING, LLAMA).fitted(Setup(model=LLAMA, device=device("rtx-pro-6000")))
    path = tmp_path / "fit.json.gz"
    path.write_bytes(gzip.compress(json.dumps(fit.to_dict()).encode()))
    assert says_profile(path)
    assert open_fitted(path).to_dict() == fit.to_dict()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not a profile"), ("[]", "is not a profile"), ('{"schema": "x"}', "schema is 'x'; it must be")],
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "fit.json"
    path.write_text(text)
    assert not says_profile(path)
    with pytest.raises(ValueError, match=rf"fit\.json: .*{problem}"):
        open_fitted(path)

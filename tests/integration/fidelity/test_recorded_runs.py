"""The simulator against runs of vLLM 0.19 on real GPUs, with prices from operator times alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fidelity import BEGIN, END, Fidelity, claims, measure, page, table
from millrace.data.profiles import open_serving
from millrace.data.runs import open_run, runs_in
from pages import ROOT

DATA = ROOT / "tests" / "data"
PROFILES = DATA / "profiles"
RUNS = ("RTX4090/Llama-3.1-8B", "RTXPRO6000/Llama-3.1-8B")
MIXTURE = "org/Mixture"


@cache
def fidelity(run: str, cost: str) -> Fidelity:
    return measure(open_run(DATA / "runs" / run, PROFILES), cost)


def fidelity_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / "fidelity.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("run", RUNS)
def test_with_measured_grids_means_are_within_2_percent_and_tails_within_4(run: str) -> None:
    found = fidelity(run, "grid")
    means = (found.ttft_mean_error, found.tpot_mean_error, found.e2e_mean_error)
    assert max(map(abs, means)) < 0.02
    assert max(abs(found.e2e_p90_error), abs(found.e2e_p99_error)) < 0.04
    assert found.requests == 300


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("cost", ["fit", "roofline"])
def test_with_few_numbers_or_a_data_sheet_all_is_within_10_percent(run: str, cost: str) -> None:
    found = fidelity(run, cost)
    errors = [value for value in vars(found).values() if isinstance(value, float)][:5]
    assert max(map(abs, errors)) < 0.1


@pytest.mark.parametrize("run", RUNS)
def test_a_cached_token_costs_decodes_about_twice_as_much_where_a_prompt_is_in_the_batch(run: str) -> None:
    found = open_run(DATA / "runs" / run, PROFILES)
    attention = open_serving(found.times, found.model).fit()
    assert 1.7 < attention.mixed.per_context_s / attention.decode.per_context_s < 2.3


def test_the_benchmark_prints_what_it_measured(tmp_path: Path) -> None:
    run, written = DATA / "runs" / RUNS[1], tmp_path / "found.json"
    done = fidelity_script(run, "--profiles", PROFILES, "--cost", "grid", "--json", "--write", written)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert row == json.loads(written.read_text())["runs"][0]
    assert row | {"cpu_s": 0} == vars(fidelity(RUNS[1], "grid")) | {"cpu_s": 0}


def test_the_benchmark_prints_a_table_and_says_what_is_missing(tmp_path: Path) -> None:
    run = DATA / "runs" / RUNS[0]
    done = fidelity_script(run, "--profiles", PROFILES, "--cost", "roofline")
    assert done.stdout.splitlines()[2].startswith("| RTX4090/Llama-3.1-8B | roofline | -")
    failed = fidelity_script(run, "--profiles", tmp_path)
    assert failed.returncode == 2
    assert "has no serving/GPU/meta-llama/Llama-3.1-8B/bf16, which" in failed.stderr


def test_a_folder_of_runs_stands_for_all_of_them_and_profiles_for_their_parent(tmp_path: Path) -> None:
    assert [run.relative_to(DATA / "runs").as_posix() for run in runs_in(DATA / "runs")] == list(RUNS)
    done = fidelity_script(DATA / "runs", "--profiles", PROFILES / "serving", "--cost", "roofline", "--json")
    assert [row["run"] for row in json.loads(done.stdout)["runs"]] == list(RUNS)
    with pytest.raises(ValueError, match="holds no run"):
        runs_in(tmp_path)
    with pytest.raises(ValueError, match="there is no file"):
        [open_run(run, PROFILES) for run in runs_in(tmp_path / "nowhere")]


def test_the_page_says_what_was_measured() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "fidelity.json").read_text())["runs"]
    assert {(row["run"], row["cost"]) for row in rows} >= {(run, "grid") for run in RUNS}
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert page(text, [Fidelity(**row) for row in rows]) == text


def test_a_page_s_table_is_made_anew() -> None:
    rows = [Fidelity("a/b", "grid", 0.01, -0.02, 0, 0, 0, 3, 0.5, "3 %", 0.1, -0.002, 0.03, 0.04)]
    tables = f"{table(rows)}\n{claims(rows)}"
    assert page(f"one\n{BEGIN}old\n{END}\ntwo\n", rows) == f"one\n{BEGIN}{tables}{END}\ntwo\n"
    assert "| a/b | grid | +1.0 / +10.0 / -0.2 % | -2.0 / +3.0 / +4.0 % | +0.0 / " in table(rows)
    with pytest.raises(ValueError, match="the page has no <!-- measured -->"):
        page("nothing", rows)


def test_a_gpu_that_nobody_names_is_asked_for(tmp_path: Path) -> None:
    run = Path(shutil.copytree(DATA / "runs" / RUNS[1], tmp_path / "some" / "run"))
    with pytest.raises(ValueError, match="no profile is of a GPU 'some'; take one by --gpu: RTX4090, RTXPRO"):
        open_run(run, PROFILES)
    assert open_run(run, PROFILES, "RTXPRO6000").device.name == "rtx-pro-6000"


def test_a_run_that_names_no_gpu_goes_with_the_only_profile(tmp_path: Path) -> None:
    profiles = Path(shutil.copytree(PROFILES, tmp_path / "profiles"))
    shutil.rmtree(profiles / "serving" / "RTX4090")
    silent = Path(shutil.copytree(DATA / "runs" / RUNS[1], tmp_path / "some" / "run"))
    assert open_run(silent, profiles).device.name == "rtx-pro-6000"
    other = Path(shutil.copytree(DATA / "runs" / RUNS[0], tmp_path / "some" / "other"))
    with pytest.raises(ValueError, match="no profile is of a GPU 'some'"):
        open_run(other, profiles)


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """A folder of profiles with one of a made-up mixture of experts, on one device and on two."""
    profile = tmp_path / "profiles" / "serving" / "RTXPRO6000" / MIXTURE / "bf16"
    shutil.copytree(PROFILES / "serving" / "RTXPRO6000" / "meta-llama" / "Llama-3.1-8B" / "bf16", profile)
    shutil.copytree(profile / "tp1", profile / "tp2")
    config = json.loads((PROFILES / "models" / "Llama-3.1-8B.json").read_text())
    config |= {
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 1024,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "profiles" / "models").mkdir()
    (tmp_path / "profiles" / "models" / "Mixture.json").write_text(json.dumps(config))
    rows = [f"{tokens},{woken},{10 * woken}" for tokens in (1, 64, 2048) for woken in (2, 8)]
    (profile / "tp1" / "moe.csv").write_text("tokens,activated_experts,time_us\n" + "\n".join(rows))
    return tmp_path / "profiles"


def run_of(folder: Path, **asked: Any) -> Path:
    """A run of 60 requests with no answer longer than 12 tokens, of which only the layout is real."""
    run = folder / "RTXPRO6000" / "made-up"
    run.mkdir(parents=True)
    kwargs = {"max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": 8192} | asked
    meta = {"model": MIXTURE, "vllm_version": "0.19.0", "engine_kwargs": kwargs}
    (run / "meta.json").write_text(json.dumps(meta))
    names = ("arrival_time", "queued_ts", "first_token_ts", "last_token_ts")
    rows = [
        {"request_id": f"{n}", "input_toks": 100 + n, "output_toks": 2 + n % 11}
        | dict(zip(names, (n / 50, n / 50, n / 50 + 0.1, n / 50 + 0.5), strict=True))
        for n in range(60)
    ]
    (run / "requests.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return run


@pytest.mark.parametrize("cost", ["grid", "fit", "roofline"])
@pytest.mark.parametrize(
    "asked",
    [
        {"tensor_parallel_size": 2},
        {"data_parallel_size": 2, "enable_expert_parallel": True},
        {"tensor_parallel_size": 2, "data_parallel_size": 2},
        {"pipeline_parallel_size": 2},
    ],
)
def test_parallel_mixtures_of_experts_are_replayed(
    tmp_path: Path, mixture: Path, cost: str, asked: dict[str, Any]
) -> None:
    found = measure(open_run(run_of(tmp_path, **asked), mixture), cost)
    assert found.requests == 60
    assert found.tpot_mean_error > -1


def test_what_a_run_needs_and_is_not_there_is_named(tmp_path: Path, mixture: Path) -> None:
    narrow = run_of(tmp_path / "narrow", quantization="fp8")
    with pytest.raises(
        ValueError, match=r"/fp8, which .* needs; there is serving/RTXPRO6000/org/Mixture/bf16"
    ):
        open_run(narrow, mixture)
    whole = run_of(tmp_path / "whole", tensor_parallel_size=2)
    (mixture / "serving" / "RTXPRO6000" / MIXTURE / "bf16" / "tp1" / "moe.csv").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*tp1/moe\.csv"):
        measure(open_run(whole, mixture), "grid")
    (mixture / "models" / "Mixture.json").unlink()
    with pytest.raises(
        ValueError, match=r"no .*Mixture\.json: save the config\.json of org/Mixture under that"
    ):
        open_run(whole, mixture)


def test_measured_collectives_are_used_where_there_are_any(tmp_path: Path, mixture: Path) -> None:
    run = run_of(tmp_path, tensor_parallel_size=2)
    before = measure(open_run(run, mixture), "grid")
    network = mixture / "network" / "rtxpro6000_node"
    network.mkdir(parents=True)
    rows = [f"{10 + size / 1e6},2,2,{size}" for size in (10**3, 10**6)]
    names = "time_stats.all_reduce.median,num_workers,devices_per_node,size\n"
    (network / "all_reduce.csv").write_text(names + "\n".join(rows))
    assert measure(open_run(run, mixture), "grid").tpot_mean_error > before.tpot_mean_error + 1

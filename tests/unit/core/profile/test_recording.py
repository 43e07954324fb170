from __future__ import annotations

import json
from typing import Any

import pytest

from millrace.core.catalogue import device, model
from millrace.core.memory import kv_blocks
from millrace.core.profile.recording import EngineRecord, Served, read_engine, read_requests

OLD: dict[str, Any] = {
    "schema_version": 1,
    "model": "meta-llama/Llama-3.1-8B",
    "vllm_version": "0.19.0",
    "engine_kwargs": {"max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": None, "seed": 42},
}
LLAMA, GPU = model("llama-3-8b"), device("rtx-pro-6000")


def engine(
    *, version: str = "0.19.0", kv_cache: Any = None, config: Any = None, **kwargs: Any
) -> EngineRecord:
    meta = OLD | {"vllm_version": version, "engine_kwargs": OLD["engine_kwargs"] | kwargs}
    if kv_cache is not None:
        meta["kv_cache"] = kv_cache
    return read_engine(json.dumps(meta | {"resolved_config": config or {}}))


def request(number: int, arrival: float, queued: float) -> str:
    fields = {"request_id": f"bench-{number}", "input_toks": 100, "output_toks": 11, "arrival_time": arrival}
    return json.dumps(
        fields | {"queued_ts": queued, "first_token_ts": queued + 1, "last_token_ts": queued + 2}
    )


def test_the_soonest_seen_request_sets_the_clocks() -> None:
    lines = [request(1, 1e9 + 0.3, 50.5), "", request(0, 1e9, 50.1)]
    first, second = read_requests(lines)
    assert (first.id, first.arrived_s) == ("bench-0", 0.0)
    assert second.arrived_s == pytest.approx(0.3, abs=1e-6)
    # Request 0 was seen at once; request 1, sent 0.3 s later, only after 0.4 s, so it has waited for 0.1 s.
    assert second.ttft_s == pytest.approx(1.1, abs=1e-6)
    assert second.e2e_s == pytest.approx(2.1, abs=1e-6)
    assert second.tpot_s == pytest.approx(0.1)


def test_an_answer_of_one_token_has_no_time_per_token() -> None:
    served = Served(id="a", prompt_tokens=1, output_tokens=1, arrived_s=0, first_token_s=1, finished_s=1)
    assert served.tpot_s is None


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "has no requests; is this the right file"),
        (
            [request(0, 1, 1), "{}"],
            "line 2: Object missing required field `request_id`; every line needs req",
        ),
        (["not json"], "line 1: JSON is malformed"),
    ],
)
def test_requests_that_cannot_be_read_are_refused(lines: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_requests(lines)


def test_an_engine_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="missing required field `model`"):
        read_engine("{}")


@pytest.mark.parametrize(
    ("version", "scheduler", "ahead"),
    [
        ("0.19.0", {}, True),
        ("0.14.1.dev3", {}, True),
        ("0.13.2", {}, False),
        ("0.19.0", {"async_scheduling": False}, False),
        ("0.9.0", {"async_scheduling": True}, True),
    ],
)
def test_an_engine_schedules_ahead_if_it_says_so_or_is_of_an_age_to(
    *, version: str, scheduler: dict[str, Any], ahead: bool
) -> None:
    assert engine(version=version, config={"scheduler_config": scheduler}).ahead is ahead


def test_limits_are_those_it_was_started_with() -> None:
    cache = {"num_gpu_blocks": 2588, "block_size": 32, "enable_prefix_caching": False}
    found = engine(kv_cache=cache, max_model_len=4096).limits(LLAMA, GPU)
    assert (found.step_tokens, found.sequences, found.context_tokens) == (2048, 128, 4096)
    assert (found.kv_blocks, found.block_tokens, found.prefix_caching) == (2587, 32, False)


def test_what_it_was_not_told_it_found_out() -> None:
    config = {
        "scheduler_config": {"max_num_seqs": 7, "max_num_batched_tokens": 512},
        "model_config": {"max_model_len": 1024},
    }
    found = engine(max_num_seqs=None, max_num_batched_tokens=None, config=config).limits(LLAMA, GPU)
    assert (found.sequences, found.step_tokens, found.context_tokens) == (7, 512, 1024)


def test_what_nobody_wrote_down_is_reckoned() -> None:
    found = engine().limits(LLAMA, GPU)
    assert (found.context_tokens, found.block_tokens, found.prefix_caching) == (8192, 16, True)
    assert found.kv_blocks == kv_blocks(LLAMA, GPU, 1, found)


def test_a_rank_holds_only_its_share_of_the_experts() -> None:
    mixtral, roomy = model("mixtral-8x7b"), device("h200")
    alone, shared = (engine(data_parallel_size=n).limits(mixtral, roomy).kv_blocks for n in (1, 2))
    freed_bytes = 4 * 32 * mixtral.expert_weights * 2
    assert (shared - alone) * 16 * mixtral.kv_bytes_per_token == pytest.approx(freed_bytes, rel=0.01)


@pytest.mark.parametrize("name", ["max_num_seqs", "max_num_batched_tokens"])
def test_what_cannot_be_reckoned_is_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=f"meta.json does not say {name}: add it to engine_kwargs"):
        engine(**dict[str, Any]({name: None})).limits(LLAMA, GPU)


def test_graphs_are_those_it_captured_or_would_have() -> None:
    captured = {"compilation_config": {"cudagraph_capture_sizes": [1, 2, 8]}}
    assert engine(config=captured).graph_tokens == (1, 2, 8)
    long = {"compilation_config": {"cudagraph_capture_sizes": "<list len=83>"}}
    assert engine(config=long).graph_tokens == engine().graph_tokens
    assert engine().graph_tokens[-1] == 256
    assert engine(max_num_seqs=1024).graph_tokens[-1] == 512
    assert engine(config=captured | {"model_config": {"enforce_eager": True}}).graph_tokens == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"output_toks": 11', '"output_toks": 0', "bench-0: input_toks and output_toks must be at least 1"),
        (
            '"queued_ts": 5',
            '"queued_ts": 9',
            "bench-0: queued_ts, first_token_ts and last_token_ts must rise",
        ),
    ],
)
def test_requests_that_cannot_have_been_served_so_are_refused(old: str, new: str, problem: str) -> None:
    line = request(0, 1, 5)
    assert old in line
    with pytest.raises(ValueError, match=problem):
        read_requests([line.replace(old, new)])


@pytest.mark.parametrize(
    ("asked", "variant"),
    [
        ({}, "bf16"),
        ({"dtype": "bfloat16", "kv_cache_dtype": "auto"}, "bf16"),
        ({"dtype": "half", "kv_cache_dtype": "fp8"}, "fp16-kvfp8"),
        ({"dtype": "bfloat16", "quantization": "fp8"}, "fp8"),
        ({"quantization": "awq"}, "awq"),
    ],
)
def test_a_profile_is_of_the_weights_and_the_cache_that_the_engine_had(
    asked: dict[str, Any], variant: str
) -> None:
    assert engine(**asked).variant == variant


def test_narrow_weights_and_caches_leave_more_room() -> None:
    plain = engine().stored(LLAMA)
    assert plain == LLAMA
    narrow = engine(quantization="fp8", kv_cache_dtype="fp8").stored(LLAMA)
    assert (narrow.weight_bytes_each, narrow.kv_bytes_each) == (1, 1)
    weights = engine(quantization="fp8").stored(LLAMA)
    assert (weights.weight_bytes_each, weights.kv_bytes_each) == (1, 2)
    assert engine(quantization="awq").stored(LLAMA) == LLAMA


def test_a_pipeline_has_room_for_more() -> None:
    one, two = (engine(pipeline_parallel_size=n).limits(LLAMA, GPU).kv_blocks for n in (1, 2))
    assert two > 2 * one


def test_prefix_caching_may_be_switched_off_by_argument() -> None:
    assert not engine(enable_prefix_caching=False).limits(LLAMA, GPU).prefix_caching
    assert engine(enable_prefix_caching=True).limits(LLAMA, GPU).prefix_caching


def test_drafted_tokens_are_not_replayed() -> None:
    with pytest.raises(
        ValueError, match=r"engine_kwargs\.speculative_config: drafted tokens are not replayed"
    ):
        engine(speculative_config={"num_speculative_tokens": 3})

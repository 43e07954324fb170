from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.memory import kv_blocks
from millrace.core.replica import Limits


def test_as_many_blocks_fit_as_a_real_engine_reported() -> None:
    """vLLM 0.19 with these limits said 2,588 (LLMServingSim's published run on an RTX 4090)."""
    limits = Limits(step_tokens=2048, sequences=256, context_tokens=32_768)
    assert kv_blocks(model("llama-3-8b"), device("rtx-4090"), 1, limits) == pytest.approx(2588, rel=0.01)


def test_splitting_a_model_leaves_more_room_on_each_device() -> None:
    limits, llama, h100 = Limits(), model("llama-3-70b"), device("h100")
    assert kv_blocks(llama, h100, 8, limits) > 2 * kv_blocks(llama, h100, 4, limits)


def test_larger_blocks_are_fewer() -> None:
    small, large = Limits(block_tokens=16), Limits(block_tokens=32)
    llama, h100 = model("llama-3-8b"), device("h100")
    assert kv_blocks(llama, h100, 1, small) == pytest.approx(2 * kv_blocks(llama, h100, 1, large), abs=1)


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    problem = r"llama-3-70b does not fit on 1x h100: each device is short by 63\.\d GiB .*; tp=2 fits"
    with pytest.raises(ValueError, match=problem):
        kv_blocks(model("llama-3-70b"), device("h100"), 1, Limits())


def test_one_request_of_full_length_must_fit_too() -> None:
    with pytest.raises(ValueError, match="one request of 131072 tokens; tp=2 fits"):
        kv_blocks(model("llama-3-8b"), device("rtx-4090"), 1, Limits(context_tokens=131_072))


def test_a_device_without_a_link_is_not_told_to_split_the_model() -> None:
    with pytest.raises(ValueError, match="no tp makes it fit, so take devices with more memory"):
        kv_blocks(model("llama-3-8b"), device("cpu"), 1, Limits())


def test_stages_share_the_weights_and_the_cache() -> None:
    llama, h100, limits = model("llama-3-70b"), device("h100"), Limits()
    two, four = (kv_blocks(llama, h100, 2, limits, stages) for stages in (2, 4))
    assert kv_blocks(llama, h100, 4, limits) == pytest.approx(two, rel=0.1)
    assert four > 2 * two


def test_the_longest_stage_has_the_least_room() -> None:
    llama, h100, limits = model("llama-3-70b"), device("h100"), Limits()
    assert kv_blocks(llama, h100, 4, limits, 3) < 27 / 80 * 4 * kv_blocks(llama, h100, 4, limits, 4)
    tied = replace(llama, tied_embeddings=True)
    assert kv_blocks(tied, h100, 4, limits, 2) == pytest.approx(
        kv_blocks(llama, h100, 4, limits, 2), rel=1e-3
    )


def test_stages_are_proposed_where_a_machine_is_not_enough() -> None:
    problem = "deepseek-v3 does not fit on 8x h100: each device is short by .* GiB .*; tp=8 pp=2 fits"
    with pytest.raises(ValueError, match=problem):
        kv_blocks(model("deepseek-v3"), device("h100"), 8, Limits())
    with pytest.raises(ValueError, match=r"llama-3-70b does not fit on 4x rtx-4090: .*; tp=2 pp=4 fits"):
        kv_blocks(model("llama-3-70b"), device("rtx-4090"), 1, Limits(), 4)

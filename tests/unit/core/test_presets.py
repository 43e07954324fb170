"""Limits that engines give themselves, by device."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device
from millrace.core.fleet_spec import parse_fleet
from millrace.core.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "gpu", "step_tokens", "sequences", "block_tokens"),
    [
        ("vllm-0.19", "h100", 8192, 1024, 16),
        ("vllm-0.19", "rtx-pro-6000", 8192, 1024, 16),
        ("vllm-0.19", "a100-80g", 2048, 256, 16),
        ("vllm-0.19", "rtx-4090", 2048, 256, 16),
        ("sglang-0.5.6", "rtx-4090", 2048, 2048, 1),
        ("sglang-0.5.6", "l40s", 4096, 2048, 1),
        ("sglang-0.5.6", "h200", 8192, 2048, 1),
        ("sglang-0.5.6", "mi300x", 16384, 2048, 1),
    ],
)
def test_defaults_depend_on_the_device(
    *, name: str, gpu: str, step_tokens: int, sequences: int, block_tokens: int
) -> None:
    limits = preset(name, device(gpu))
    assert (limits.step_tokens, limits.sequences) == (step_tokens, sequences)
    assert (limits.block_tokens, limits.prefix_caching) == (block_tokens, True)


def test_a_preset_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'vllm'; did you mean 'vllm-0.19'\?"):
        preset("vllm", device("h100"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_fleet_takes_a_preset_and_single_options_on_top_of_it(name: str) -> None:
    plain, altered = parse_fleet(
        f"h100 llama-3-8b preset={name}, h100 llama-3-8b max_num_seqs=64 preset={name}"
    )
    expected = preset(name, plain.device)
    assert plain.limits.step_tokens == altered.limits.step_tokens == expected.step_tokens
    assert plain.limits.block_tokens == expected.block_tokens
    assert (plain.limits.sequences, altered.limits.sequences) == (expected.sequences, 64)
    assert plain.limits.context_tokens == 8192
    assert plain.limits.kv_blocks > 0

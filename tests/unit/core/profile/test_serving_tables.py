from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import model
from millrace.core.cost import Bins, Skew
from millrace.core.profile import serving

DENSE = model("llama-3-8b")
MIXTURE = replace(model("mixtral-8x7b"), layers=4, dense_layers=1)
AXES = {
    "n_bins": ["0", "2", "9"],
    "n_labels": ["n<=2", "n>2"],
    "skew_rate_bins": ["0", "1"],
    "skew_rate_labels": ["sr"],
    "kv_big_bins": ["0", "1024"],
    "kv_big_labels": ["kvB"],
    "kp_bins": ["-1", "0"],
    "kp_labels": ["kp=0"],
}
ALPHAS = ["pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples", "0,n<=2,sr,kvB,kp=0,0.2,4"]


def settings(**skew_fit: Any) -> dict[str, Any]:
    about = {"model": "m", "gpu": "NVIDIA G", "hardware": "G", "vllm_version": "0.19.0"}
    return about | ({"skew_fit": skew_fit} if skew_fit else {})


def test_a_step_runs_each_layer_as_often_as_the_model_has_it() -> None:
    once = ["embedding", "final_layernorm"]
    often = [
        "layernorm",
        "qkv_proj",
        "rotary_emb",
        "o_proj",
        "gate_up_proj",
        "act_fn",
        "down_proj",
        "qk_norm",
    ]
    lines = ["layer,tokens,time_us", *(f"{layer},1,1" for layer in once + often)]
    assert serving.read_dense(lines, DENSE).at(1) == pytest.approx(1e-6 * (2 + 32 * (2 + 7)))
    assert serving.read_dense(lines, MIXTURE).at(1) == pytest.approx(1e-6 * (2 + 4 * (2 + 4) + 1 * 3))


def test_layers_timed_at_different_sizes_are_added_in_between() -> None:
    products = [f"{layer},2,0" for layer in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")]
    lines = ["layer,tokens,time_us", "embedding,1,1", "embedding,3,3", "final_layernorm,2,10", *products]
    assert [serving.read_dense(lines, DENSE).at(n) for n in (1, 2, 3)] == pytest.approx([11e-6, 12e-6, 13e-6])


def test_the_head_is_the_lm_head_and_the_sampler() -> None:
    lines = ["layer,sequences,time_us", "lm_head,1,700", "sampler,1,20", "lm_head,2,710", "sampler,2,22"]
    assert serving.read_head(lines).at(2) == pytest.approx(732e-6)


def test_a_table_without_a_product_is_not_whole() -> None:
    lines = ["layer,tokens,time_us", "qkv_proj,1,1", "o_proj,1,1", "down_proj,1,1"]
    with pytest.raises(ValueError, match="has no rows of layer gate_up_proj; profile again with all layers"):
        serving.read_dense(lines, DENSE)
    all_experts = replace(MIXTURE, dense_layers=0)
    assert serving.read_dense(lines, all_experts).at(1) == pytest.approx(8e-6)
    with pytest.raises(ValueError, match="has no rows of layer sampler"):
        serving.read_head(["layer,sequences,time_us", "lm_head,1,700"])


def test_layers_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 'conv' is not known; those by tokens are embedding,"):
        serving.read_dense(["layer,tokens,time_us", "conv,1,1"], DENSE)
    with pytest.raises(
        ValueError, match="layer 'conv' is not known; those by sequences are lm_head, sampler"
    ):
        serving.read_head(["layer,sequences,time_us", "conv,1,1"])


def test_attention_is_that_of_all_layers() -> None:
    lines = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", "0,0,1,16,8", "16,32,2,64,9.5"]
    assert serving.read_attention(lines, DENSE) == pytest.approx(
        {(0, 0, 1, 16): 256e-6, (16, 32, 2, 64): 304e-6}
    )


def test_experts_are_those_of_the_layers_that_have_them() -> None:
    lines = ["tokens,activated_experts,time_us", "2,8,50", "1,2,20", "2,4,30"]
    found = serving.read_experts(lines, MIXTURE)
    assert list(found) == [1, 2]
    assert found[2].at(6) == pytest.approx(3 * 40e-6)


def test_skew_is_read_with_the_bins_that_the_settings_name() -> None:
    about = serving.read_description(
        settings(enabled="true", bucket_axes=AXES, per_tp={"2": {"alpha_default": "0.05", "method": "wls"}})
    )
    found = serving.read_skew(about, ALPHAS, 2)
    assert found is not None
    assert (found.default, found.decodes) == (0.05, Bins((0, 2, 9), ("n<=2", "n>2")))
    assert found.alphas == {(0, "n<=2", "sr", "kvB", "kp=0"): 0.2}


def test_no_correction_is_made_that_the_settings_do_not_ask_for() -> None:
    off = serving.read_description(settings(enabled="false"))
    other = serving.read_description(settings(enabled="true", per_tp={"1": {"alpha_default": "0.05"}}))
    assert serving.read_skew(off, ALPHAS, 1) is serving.read_skew(other, ALPHAS, 2) is None
    assert serving.read_skew(serving.read_description(settings()), ALPHAS, 1) is None
    assert serving.read_skew(other, ALPHAS, 1) == Skew(default=0.05)


def test_settings_that_are_wrong_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"`float`.*\$\.skew_fit\.per_tp"):
        serving.read_description(settings(enabled="true", per_tp={"1": {"alpha_default": "low"}}))
    with pytest.raises(ValueError, match="missing required field `model`"):
        serving.read_description({})

from __future__ import annotations

import pytest

from millrace.core.catalogue import DEVICES, MODELS, device, model

PUBLISHED_PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v3": 671_026_419_200,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_parameters_are_those_of_the_published_checkpoint(name: str, parameters: int) -> None:
    assert model(name).parameters == parameters


def test_every_model_of_the_catalogue_but_our_own_is_held_against_its_checkpoint() -> None:
    assert set(MODELS) - {"demo"} == set(PUBLISHED_PARAMETERS)


@pytest.mark.parametrize(("name", "billions"), [("mixtral-8x7b", 12.9), ("deepseek-v3", 37.6)])
def test_active_parameters_are_the_published_ones(name: str, billions: float) -> None:
    assert model(name).active_parameters / 1e9 == pytest.approx(billions, abs=0.05)


def test_a_dense_model_is_active_as_a_whole() -> None:
    assert model("llama-3-8b").active_parameters == model("llama-3-8b").parameters


@pytest.mark.parametrize(
    ("name", "attention", "numbers"),
    [("llama-2-7b", "mha", 8192), ("llama-3-8b", "gqa", 2048), ("deepseek-v3", "mla", 576)],
)
def test_the_kv_cache_is_as_wide_as_the_attention_makes_it(name: str, attention: str, numbers: int) -> None:
    spec = model(name)
    assert spec.attention == attention
    assert spec.kv_numbers_per_token == numbers
    assert spec.kv_bytes_per_token == spec.layers * numbers * 2


def test_devices_split_kv_heads_down_to_one_and_copy_a_latent_cache() -> None:
    llama, deepseek = model("llama-3-8b"), model("deepseek-v3")
    assert llama.kv_bytes_per_token_each(1) == llama.kv_bytes_per_token == 131_072
    assert llama.kv_bytes_per_token_each(8) == llama.kv_bytes_per_token / 8
    assert llama.kv_bytes_per_token_each(16) == llama.kv_bytes_per_token_each(8)
    assert deepseek.kv_bytes_per_token_each(8) == deepseek.kv_bytes_per_token


def test_fp8_weights_take_a_byte_each() -> None:
    assert model("deepseek-v3").weight_bytes == PUBLISHED_PARAMETERS["deepseek-v3"]
    assert model("llama-3-8b").weight_bytes == 2 * PUBLISHED_PARAMETERS["llama-3-8b"]


def test_operations_are_two_for_each_weight_a_token_meets() -> None:
    llama = model("llama-3-8b")
    assert llama.flops_per_token == 2 * llama.dense_weights
    assert llama.flops_per_emit == 2 * 4096 * 128_256
    assert llama.flops_per_pair == llama.flops_per_cached_token == 4 * 32 * 128
    deepseek = model("deepseek-v3")
    assert deepseek.flops_per_token == 2 * (deepseek.dense_weights + 58 * 8 * 3 * 7168 * 2048)
    assert deepseek.flops_per_pair == 2 * 128 * (192 + 128)
    assert deepseek.flops_per_cached_token == 2 * 128 * (2 * 512 + 64)


def test_every_figure_of_the_catalogue_says_where_it_is_from() -> None:
    assert all(spec.source for spec in MODELS.values())
    assert all(spec.source for spec in DEVICES.values())
    assert all(bool(spec.price_source) == (spec.price_per_h is not None) for spec in DEVICES.values())


def test_names_that_are_not_in_the_catalogue_are_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="unknown device 'h1000'; did you mean 'h100'"):
        device("h1000")
    with pytest.raises(ValueError, match="unknown model 'gpt-2'; known: deepseek-v3, demo"):
        model("gpt-2")

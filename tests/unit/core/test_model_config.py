from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import model
from millrace.core.model_config import from_config
from millrace.data import demo_model

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
QWEN3_MOE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
}
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8"},
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def test_a_llama_is_described_as_the_catalogue_does() -> None:
    assert from_config(LLAMA, name="llama-3-8b", source=model("llama-3-8b").source) == model("llama-3-8b")


def test_the_demo_model_is_described_as_the_catalogue_does_but_for_how_it_computes() -> None:
    config = json.loads((demo_model() / "config.json").read_text())
    found = from_config(config, name="demo", source=model("demo").source)
    assert replace(found, weight_bytes_each=4, kv_bytes_each=4) == model("demo")


def test_deepseek_is_described_as_the_catalogue_does() -> None:
    found = from_config(DEEPSEEK, name="deepseek-v3", source=model("deepseek-v3").source)
    assert found == model("deepseek-v3")


def test_mixtrals_experts_are_as_wide_as_its_mlp() -> None:
    config = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    found = from_config(config | {"vocab_size": 32_000})
    assert found.parameters == model("mixtral-8x7b").parameters
    assert found.name == "mixtral"


def test_qwen_counts_its_sparse_layers() -> None:
    assert from_config(QWEN3_MOE).parameters == 30_532_122_624
    assert from_config(QWEN3_MOE | {"mlp_only_layers": [0, 1]}).expert_layers == 46
    assert from_config(QWEN3_MOE | {"decoder_sparse_step": 2}).expert_layers == 24


def test_qwen2_has_biases_on_queries_keys_and_values() -> None:
    plain, qwen2 = from_config(LLAMA), from_config(LLAMA | {"model_type": "qwen2"})
    assert qwen2.parameters - plain.parameters == 32 * (32 + 2 * 8) * 128


def test_the_older_fields_may_be_missing() -> None:
    config = {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "torch_dtype")}
    found = from_config(config | {"dtype": "float32", "_name_or_path": "my/llama"})
    assert (found.name, found.kv_heads, found.head_dim, found.weight_bytes_each) == ("my/llama", 32, 128, 4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
        ({"hidden_size": None}, "config.json: hidden_size is None"),
        ({"vocab_size": "many"}, "config.json: vocab_size is 'many'"),
        ({"num_hidden_layers": -1}, "config.json: num_hidden_layers is -1"),
        ({"torch_dtype": "int3"}, "unknown torch_dtype 'int3'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'; only 'fp8' is known"),
    ],
)
def test_what_cannot_be_described_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_config(LLAMA | change)

"""The arithmetic of models, held against modules that transformers builds from the same config."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.model_config import from_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "max_position_embeddings": 128,
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
CONFIGS: list[dict[str, Any]] = [
    SMALL | {"model_type": "llama"},
    SMALL | {"model_type": "llama", "head_dim": 32, "tie_word_embeddings": True},
    SMALL | {"model_type": "mistral"},
    SMALL | {"model_type": "qwen2"},
    SMALL | {"model_type": "qwen3", "head_dim": 32},
    SMALL | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    SMALL | EXPERTS | {"model_type": "qwen3_moe", "head_dim": 16, "mlp_only_layers": [1]},
    SMALL
    | {
        "model_type": "deepseek_v3",
        "first_k_dense_replace": 1,
        "kv_lora_rank": 24,
        "moe_intermediate_size": 40,
        "n_group": 1,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 6,
        "q_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "topk_group": 1,
        "v_head_dim": 12,
    },
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: str(c["model_type"]))
def test_parameters_are_as_many_as_the_module_has(config: dict[str, Any]) -> None:
    fields = {k: v for k, v in config.items() if k != "model_type"}
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(config["model_type"], **fields)
        )
    held = dict(module.named_parameters())
    # DeepSeek's routers keep their correction as a buffer that is saved like a parameter.
    held |= {k: v for k, v in module.named_buffers() if k.endswith("e_score_correction_bias")}
    assert from_config(config).parameters == sum(v.numel() for v in held.values())

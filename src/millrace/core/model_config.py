"""Models described by the `config.json` that Hugging Face checkpoints carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace.core.model import LatentSpec, ModelSpec
from millrace.core.suggest import unknown

MODEL_TYPES = ("deepseek_v3", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe")
_BYTES_OF_DTYPE = {"float32": 4, "float16": 2, "bfloat16": 2}


def from_config(
    config: Mapping[str, Any], *, name: str | None = None, source: str = "config.json"
) -> ModelSpec:
    """Describe the model of a decoded `config.json`.

    Raises ValueError for a model type whose arithmetic is not known, and for a missing or wrong field.
    """
    kind = str(config.get("model_type"))
    if kind not in MODEL_TYPES:
        raise unknown("model_type", kind, MODEL_TYPES)
    heads = _count(config, "num_attention_heads")
    hidden = _count(config, "hidden_size")
    layers = _count(config, "num_hidden_layers")
    latent = _latent(config) if kind == "deepseek_v3" else None
    return ModelSpec(
        name=name or str(config.get("_name_or_path") or kind),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", heads),
        head_dim=latent.nope_dim + latent.rope_dim if latent else _count(config, "head_dim", hidden // heads),
        ffn=_count(config, "intermediate_size"),
        vocab=_count(config, "vocab_size"),
        context_tokens=_count(config, "max_position_embeddings"),
        source=source,
        latent=latent,
        attention_bias=kind == "qwen2" or bool(config.get("attention_bias")),
        qk_norm=kind.startswith("qwen3"),
        tied_embeddings=bool(config.get("tie_word_embeddings")),
        weight_bytes_each=_weight_bytes_each(config),
        **_experts(config, kind, layers),
    )


def _experts(config: Mapping[str, Any], kind: str, layers: int) -> dict[str, int]:
    if kind == "mixtral":
        return {
            "experts": _count(config, "num_local_experts"),
            "active_experts": _count(config, "num_experts_per_tok"),
            "expert_ffn": _count(config, "intermediate_size"),
        }
    if kind == "qwen3_moe":
        return {
            "experts": _count(config, "num_experts"),
            "active_experts": _count(config, "num_experts_per_tok"),
            "expert_ffn": _count(config, "moe_intermediate_size"),
            "dense_layers": _dense_layers(config, layers),
        }
    if kind == "deepseek_v3":
        return {
            "experts": _count(config, "n_routed_experts"),
            "active_experts": _count(config, "num_experts_per_tok"),
            "shared_experts": _count(config, "n_shared_experts"),
            "expert_ffn": _count(config, "moe_intermediate_size"),
            "dense_layers": _count(config, "first_k_dense_replace", 0),
        }
    return {}


def _dense_layers(config: Mapping[str, Any], layers: int) -> int:
    """Qwen3 names its dense layers one by one; how many there are is all that the arithmetic needs."""
    dense = set(config.get("mlp_only_layers") or ())
    step = _count(config, "decoder_sparse_step", 1)
    return sum(layer in dense or (layer + 1) % step != 0 for layer in range(layers))


def _latent(config: Mapping[str, Any]) -> LatentSpec:
    return LatentSpec(
        query_rank=_count(config, "q_lora_rank"),
        kv_rank=_count(config, "kv_lora_rank"),
        nope_dim=_count(config, "qk_nope_head_dim"),
        rope_dim=_count(config, "qk_rope_head_dim"),
        value_dim=_count(config, "v_head_dim"),
    )


def _weight_bytes_each(config: Mapping[str, Any]) -> float:
    quantization = config.get("quantization_config")
    if isinstance(quantization, Mapping):
        method = quantization.get("quant_method")
        if method != "fp8":
            fix = "only 'fp8' is known, so build the ModelSpec with its weight_bytes_each"
            raise ValueError(f"quantization_config: quant_method is {method!r}; {fix}")
        return 1
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if dtype not in _BYTES_OF_DTYPE:
        raise unknown("torch_dtype", dtype, _BYTES_OF_DTYPE)
    return _BYTES_OF_DTYPE[dtype]


def _count(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"config.json: {field} is {value!r}; it must be a whole number of at least 0")
    return value

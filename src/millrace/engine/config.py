"""What a checkpoint's `config.json` says of its network, in Hugging Face's own field names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from millrace.engine.rope import Rope

Positive = Annotated[int, Meta(ge=1)]
FAMILIES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}


class ModelConfig(Struct, frozen=True, kw_only=True):
    """The sizes and switches of a decoder-only network of the Llama, Qwen2 or Qwen3 family."""

    architectures: list[str]
    vocab_size: Positive
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    max_position_embeddings: Positive
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float = 1.0
    use_sliding_window: bool = False
    tie_word_embeddings: bool = False
    quantization_config: dict[str, Any] | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def family(self) -> str:
        """The family's short name."""
        return FAMILIES[self.architectures[0]]

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; fewer than query heads under grouped-query attention."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rope(self) -> Rope:
        """The rotary embedding, from the old (`rope_scaling`) or the new (`rope_parameters`) key."""
        fields = {**(self.rope_scaling or {}), **(self.rope_parameters or {})}
        theta = fields.pop("rope_theta", None) or self.rope_theta or 10_000.0
        kind = fields.pop("rope_type", None) or fields.pop("type", None) or "default"
        fields.setdefault("original_max_position_embeddings", self.max_position_embeddings)
        return Rope(kind=kind, theta=theta, head_size=self.head_size, scaling=fields)


def read_config(folder: Path) -> ModelConfig:
    """Read `config.json`; a ValueError says which key this engine cannot follow."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path}: not found; --model must be a folder with a Hugging Face checkpoint")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=ModelConfig)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}; is it the config.json of a language model?") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); download it again") from error
    for key, wrong in _unsupported(config).items():
        raise ValueError(f"{path}: {key}: {wrong}")
    return config


def _unsupported(config: ModelConfig) -> dict[str, str]:
    scaling = config.rope.scaling
    rotated = scaling.get("partial_rotary_factor", config.partial_rotary_factor)
    checks = {
        "architectures": config.architectures[:1] and config.architectures[0] in FAMILIES,
        "hidden_act": config.hidden_act == "silu",
        "partial_rotary_factor": rotated == 1.0,
        "rope_type": config.rope.supported,
        "use_sliding_window": not config.use_sliding_window,
        "quantization_config": config.quantization_config is None,
        "num_key_value_heads": config.num_attention_heads % config.kv_heads == 0,
    }
    found = {
        "architectures": f"{config.architectures} is not served; choose one of {', '.join(FAMILIES)}",
        "hidden_act": f"{config.hidden_act!r} is not served; only 'silu' is",
        "partial_rotary_factor": f"{rotated} is not served; only 1.0 is",
        "rope_type": f"{config.rope.kind!r} is not served; choose default, linear, llama3 or yarn",
        "use_sliding_window": "sliding windows are not served; set it to false to attend to everything",
        "quantization_config": "quantised weights are not served; use the checkpoint in bfloat16 or float32",
        "num_key_value_heads": f"{config.kv_heads} does not divide {config.num_attention_heads} heads",
    }
    return {key: found[key] for key, fine in checks.items() if not fine}

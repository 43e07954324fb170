"""From tensors to a model: packs Q, K and V, packs gate and up, and reorders heads for the rotation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from millrace.engine.checkpoint import Checkpoint
from millrace.engine.config import ModelConfig, read_config
from millrace.engine.linear import Linear, linear
from millrace.engine.model import Layer, Model
from millrace.engine.rope import interleave


def load_model(
    folder: Path, *, dtype: torch.dtype, device: str = "cpu", context_tokens: int | None = None
) -> Model:
    """Read a checkpoint folder. Raises ValueError, naming file and key, for what this engine cannot run."""
    config = read_config(folder)
    with Checkpoint(folder, dtype=dtype, device=device) as checkpoint:
        return _Loader(config, checkpoint).model(
            min(context_tokens or 1 << 62, config.max_position_embeddings)
        )


class _Loader:
    def __init__(self, config: ModelConfig, checkpoint: Checkpoint) -> None:
        self._config, self._checkpoint = config, checkpoint

    def model(self, positions: int) -> Model:
        config = self._config
        words = self._checkpoint.tensor("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
        layers = [self._layer(f"model.layers.{i}.") for i in range(config.num_hidden_layers)]
        head = words
        if not config.tie_word_embeddings:
            head = self._checkpoint.tensor("lm_head.weight", (config.vocab_size, config.hidden_size))
        norm = self._checkpoint.tensor("model.norm.weight", (config.hidden_size,))
        rotations = config.rope.table(positions).to(words.device)
        return Model(config, words, layers, norm, linear(head), rotations)

    def _layer(self, prefix: str) -> Layer:
        hidden, ffn = self._config.hidden_size, self._config.intermediate_size
        heads = self._config.num_attention_heads * self._config.head_size
        return Layer(
            attention_norm=self._checkpoint.tensor(f"{prefix}input_layernorm.weight", (hidden,)),
            qkv=self._qkv(f"{prefix}self_attn."),
            qk_norm=self._qk_norm(f"{prefix}self_attn."),
            output=self._linear([f"{prefix}self_attn.o_proj"], hidden, heads),
            ffn_norm=self._checkpoint.tensor(f"{prefix}post_attention_layernorm.weight", (hidden,)),
            gate_up=self._linear([f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj"], ffn, hidden),
            down=self._linear([f"{prefix}mlp.down_proj"], hidden, ffn),
        )

    def _linear(self, names: list[str], outputs: int, inputs: int) -> Linear:
        """One layer from several of the same shape, their outputs one after another."""
        weights = [self._checkpoint.tensor(f"{name}.weight", (outputs, inputs)) for name in names]
        biases = [self._checkpoint.maybe(f"{name}.bias", (outputs,)) for name in names]
        return linear(torch.cat(weights), _joined(biases))

    def _qkv(self, prefix: str) -> Linear:
        config, weights, biases = self._config, [], []
        counts = {"q": config.num_attention_heads, "k": config.kv_heads, "v": config.kv_heads}
        for name, heads in counts.items():
            outputs = heads * config.head_size
            weight = self._checkpoint.tensor(f"{prefix}{name}_proj.weight", (outputs, config.hidden_size))
            bias = self._checkpoint.maybe(f"{prefix}{name}_proj.bias", (outputs,))
            weights.append(weight if name == "v" else interleave(weight, config.head_size))
            biases.append(bias if name == "v" or bias is None else interleave(bias, config.head_size))
        return linear(torch.cat(weights), _joined(biases))

    def _qk_norm(self, prefix: str) -> Tensor | None:
        config = self._config
        if config.family != "qwen3":
            return None
        norms = []
        for name, heads in (("q", config.num_attention_heads), ("k", config.kv_heads)):
            norm = self._checkpoint.tensor(f"{prefix}{name}_norm.weight", (config.head_size,))
            norms.append(interleave(norm, config.head_size).expand(heads, -1))
        return torch.cat(norms)


def _joined(biases: list[Tensor | None]) -> Tensor | None:
    given = [bias for bias in biases if bias is not None]
    if not given:
        return None
    assert len(given) == len(biases), "projections that are packed together all have a bias or none has"
    return torch.cat(given)

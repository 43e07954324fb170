"""The decoder of the Llama, Qwen2 and Qwen3 families over a paged KV cache, for one mixed batch of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import embedding, rms_norm, silu

from millrace.engine.attention import AttentionStep
from millrace.engine.config import ModelConfig
from millrace.engine.kv import LayerCache
from millrace.engine.linear import Linear
from millrace.engine.rope import rotate


@dataclass(frozen=True, slots=True)
class Inputs:
    """One batch: its tokens, their positions, the cache `rows` of their keys, and which need logits."""

    ids: Tensor
    positions: Tensor
    rows: Tensor
    last: Tensor
    attention: AttentionStep


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer; `qk_norm` is (heads + kv_heads, head_size), None but for Qwen3."""

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    output: Linear
    ffn_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, repr=False)
class Model:
    """The whole network; `rotations` are its rotary embeddings by position."""

    config: ModelConfig
    embedding: Tensor
    layers: Sequence[Layer]
    norm: Tensor
    head: Linear
    rotations: Tensor

    def forward(self, inputs: Inputs, caches: Sequence[LayerCache]) -> Tensor:
        """Write the batch's keys and values into `caches`, and return logits (last, vocab)."""
        x = embedding(inputs.ids, self.embedding)
        turns = self.rotations.index_select(0, inputs.positions).unsqueeze(1)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = x + self._attend(layer, self._norm(x, layer.attention_norm), turns, inputs, cache)
            x = x + self._feed_forward(layer, self._norm(x, layer.ffn_norm))
        return self.head(self._norm(x.index_select(0, inputs.last), self.norm))

    def _attend(self, layer: Layer, x: Tensor, turns: Tensor, inputs: Inputs, cache: LayerCache) -> Tensor:
        queries = self.config.num_attention_heads
        turned = queries + self.config.kv_heads
        heads = layer.qkv(x).view(x.shape[0], -1, self.config.head_size)
        qk = heads[:, :turned]
        if layer.qk_norm is not None:
            qk.copy_(rms_norm(qk, qk.shape[-1:], eps=self.config.rms_norm_eps).mul_(layer.qk_norm))
        rotate(qk, turns)
        cache.write(inputs.rows, heads[:, queries:])
        return layer.output(inputs.attention(heads[:, :queries], cache))

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(silu(gate).mul_(up))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)

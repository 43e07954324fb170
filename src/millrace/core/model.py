"""A model's shape, and the arithmetic that follows from it: parameters, bytes and operations.

Covers decoder-only transformers with gated MLPs: multi-head, grouped-query and multi-head latent attention
(DeepSeek-V2, arXiv:2405.04434), dense or with routed and shared experts (Mixtral, DeepSeek-V3, Qwen3).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Attention = Literal["mha", "gqa", "mla"]


class LatentSpec(Struct, frozen=True, kw_only=True):
    """Multi-head latent attention: the ranks it compresses to, and the widths of a head's parts."""

    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


class ModelSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as its `config.json` describes it.

    `context_tokens` is the longest sequence it was made for. `ffn` is the width of a dense MLP, `expert_ffn`
    that of one expert. The first `dense_layers` layers have a dense MLP; in all others `active_experts` of
    `experts` are chosen for each token, and `shared_experts` serve every token. `weight_bytes_each` and
    `kv_bytes_each` are bytes per parameter and per cached number.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context_tokens: int
    source: str
    experts: int = 0
    active_experts: int = 0
    shared_experts: int = 0
    expert_ffn: int = 0
    dense_layers: int = 0
    latent: LatentSpec | None = None
    attention_bias: bool = False
    qk_norm: bool = False
    tied_embeddings: bool = False
    weight_bytes_each: float = 2
    kv_bytes_each: float = 2

    @property
    def attention(self) -> Attention:
        """How heads share keys and values."""
        if self.latent:
            return "mla"
        return "mha" if self.heads == self.kv_heads else "gqa"

    @property
    def expert_layers(self) -> int:
        """Layers whose MLP is a choice of experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def attention_weights(self) -> int:
        """Parameters of one layer's attention projections, without norms and biases."""
        if self.latent is None:
            return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        m, h = self.latent, self.heads
        query = m.query_rank * (self.hidden + h * (m.nope_dim + m.rope_dim))
        compressed = self.hidden * (m.kv_rank + m.rope_dim)
        return query + compressed + m.kv_rank * h * (m.nope_dim + m.value_dim) + h * m.value_dim * self.hidden

    @property
    def expert_weights(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden * self.expert_ffn

    @property
    def dense_weights(self) -> int:
        """Parameters of all layers that serve every token: attention, dense MLPs, routers, shared experts."""
        mlps = 3 * self.hidden * self.ffn * (self.layers - self.expert_layers)
        per_expert_layer = self.hidden * self.experts + self.shared_experts * self.expert_weights
        return self.layers * self.attention_weights + mlps + self.expert_layers * per_expert_layer

    @property
    def head_weights(self) -> int:
        """Parameters of the LM head, which are also those of the embedding."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, as the published checkpoint has them."""
        experts = self.expert_layers * self.experts * self.expert_weights
        return self.dense_weights + experts + self._embeddings + self._vectors

    @property
    def active_parameters(self) -> int:
        """Parameters that take part in one token: all but the experts not chosen for it."""
        experts = self.expert_layers * self.active_experts * self.expert_weights
        return self.dense_weights + experts + self._embeddings + self._vectors

    @property
    def weight_bytes(self) -> float:
        """Memory the weights take."""
        return self.parameters * self.weight_bytes_each

    @property
    def kv_numbers_per_token(self) -> int:
        """Numbers one layer caches for one token."""
        if self.latent:
            return self.latent.kv_rank + self.latent.rope_dim
        return 2 * self.kv_heads * self.head_dim

    @property
    def kv_bytes_per_token(self) -> float:
        """KV cache of one token in all layers, on a single device."""
        return self.layers * self.kv_numbers_per_token * self.kv_bytes_each

    def kv_bytes_per_token_each(self, tensor_parallel: int) -> float:
        """The same on each of several devices: heads are split, down to one; a latent cache is not."""
        if self.latent:
            return self.kv_bytes_per_token
        heads = max(1, -(-self.kv_heads // tensor_parallel))
        return self.layers * 2 * heads * self.head_dim * self.kv_bytes_each

    @property
    def flops_per_token(self) -> int:
        """Operations of one token's matrix products in all layers, without attention and the LM head."""
        return 2 * (self.dense_weights + self.expert_layers * self.active_experts * self.expert_weights)

    @property
    def flops_per_emit(self) -> int:
        """Operations of the LM head for one sequence that samples."""
        return 2 * self.head_weights

    @property
    def flops_per_pair(self) -> int:
        """Operations of one layer's attention for one prompt token that looks at another, over all heads."""
        if self.latent:
            return 2 * self.heads * (self.latent.nope_dim + self.latent.rope_dim + self.latent.value_dim)
        return 4 * self.heads * self.head_dim

    @property
    def flops_per_cached_token(self) -> int:
        """The same in a decode step, where latent attention works on the compressed cache itself."""
        if self.latent:
            return 2 * self.heads * (2 * self.latent.kv_rank + self.latent.rope_dim)
        return self.flops_per_pair

    @property
    def _embeddings(self) -> int:
        return self.head_weights * (1 if self.tied_embeddings else 2)

    @property
    def _vectors(self) -> int:
        """Norms, biases, and the correction that DeepSeek-V3 adds to its routers' scores."""
        per_layer = 2 * self.hidden
        if self.latent:
            per_layer += self.latent.query_rank + self.latent.kv_rank
        if self.qk_norm:
            per_layer += 2 * self.head_dim
        if self.attention_bias:
            per_layer += (self.heads + 2 * self.kv_heads) * self.head_dim
        corrections = self.expert_layers * self.experts if self.latent else 0
        return self.layers * per_layer + self.hidden + corrections

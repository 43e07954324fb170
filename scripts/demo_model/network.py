"""A Llama network in plain PyTorch, with the names and conventions of Hugging Face's `LlamaForCausalLM`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; the embedding is also the output layer."""

    vocab: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 768
    max_positions: int = 2048
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5


def rope_tables(shape: Shape, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of rotary embeddings, each (tokens, head_dim)."""
    exponents = torch.arange(0, shape.head_dim, 2) / shape.head_dim
    angles = torch.outer(torch.arange(tokens).float(), shape.rope_theta**-exponents).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of `x` (batch, heads, tokens, head_dim) by its angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to the same shape."""
        batch, tokens, _ = x.shape
        q, k, v = (
            projection(x).view(batch, tokens, -1, self.shape.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        groups = self.shape.heads // self.shape.kv_heads
        k = rotate(k, cosine, sine).repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
        mixed = functional.scaled_dot_product_attention(rotate(q, cosine, sine), k, v, is_causal=True)
        y: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return y


class FeedForward(nn.Module):
    """The SwiGLU feed-forward layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to the same shape."""
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Layer(nn.Module):
    """One decoder layer: attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Map (batch, tokens, hidden) to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Decoder(nn.Module):
    """Embedding, layers and last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (batch, tokens) to hidden states (batch, tokens, hidden)."""
        dtype = self.embed_tokens.weight.dtype
        # The gradient of a frequent token is a sum of hundreds of terms, which bfloat16 would round away.
        x = functional.embedding(ids, self.embed_tokens.weight.float()).to(dtype)
        tables = rope_tables(self.shape, ids.shape[1], dtype)
        for layer in self.layers:
            x = layer(x, *tables)
        y: Tensor = self.norm(x)
        return y


class Llama(nn.Module):
    """The whole network; its `state_dict` is what `LlamaForCausalLM` loads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.model = Decoder(shape)
        for name, parameter in self.named_parameters():
            _initialise(name, parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (batch, tokens) to logits (batch, tokens, vocab)."""
        return functional.linear(self.model(ids), self.model.embed_tokens.weight)

    def loss(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of `ids` (batch, tokens + 1), in nats per token."""
        logits = self(ids[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def _initialise(name: str, parameter: nn.Parameter) -> None:
    if parameter.ndim < 2:
        return
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        nn.init.zeros_(parameter)  # every layer starts as the identity, which bears a higher learning rate
    else:
        nn.init.normal_(parameter, std=0.02 if "embed" in name else parameter.shape[1] ** -0.5)

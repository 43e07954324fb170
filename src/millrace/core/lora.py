"""How large low-rank adapters are, and how they are shared among a trace's requests.

Source: LoRA (Hu et al., 2021), on every linear layer of a dense model's blocks, on attention only where an
MLP is a choice of experts; popularity as in S-LoRA and Punica, which take a power law.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import accumulate

from msgspec.structs import replace

from millrace.core.draw import draw
from millrace.core.model import ModelSpec
from millrace.core.trace import TraceRecord

_BYTES_EACH = 2  # bf16, whatever the weights are


def adapter_bytes(model: ModelSpec, rank: int) -> int:
    """Return the bytes of an adapter of this rank: two thin matrices beside each wide one.

    Raises ValueError for a model with latent attention, whose adapters come in several forms.
    """
    if model.latent:
        raise ValueError(
            f"lora_rank: {model.name} has latent attention; say how long its adapters load instead"
        )
    heads, kv_heads = model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = 2 * (model.hidden + heads) + 2 * (model.hidden + kv_heads)
    mlp = 3 * (model.hidden + model.ffn) * (model.layers - model.expert_layers)
    return rank * (model.layers * attention + mlp) * _BYTES_EACH


def spread_adapters(records: Iterable[TraceRecord], count: int) -> Iterator[TraceRecord]:
    """Give each request one of `count` adapters, the k-th of them 1/k as often as the first (Zipf).

    It is drawn from the session's name, so that a conversation keeps its adapter, or from the request's id.
    Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"adapters is {count}; it must be at least 1")
    bounds = list(accumulate(1 / k for k in range(1, count + 1)))
    names = [f"adapter-{k}" for k in range(1, count + 1)]
    for record in records:
        place = draw("adapters", record.session or record.id) / 2**64 * bounds[-1]
        yield replace(record, adapter=names[min(bisect(bounds, place), count - 1)])

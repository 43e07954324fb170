"""Paged attention of one mixed batch: some sequences decode, others compute a chunk of their prompt.

`Attention` is the seam: a body is planned once per step and then called once per layer.
`SdpaAttention` is made of torch's scaled_dot_product_attention and needs no compiled extension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from millrace.engine.kv import LayerCache, pages_of

# Single tokens are padded together if the longest context is at most twice the shortest plus this.
SPREAD_TOKENS = 128


class Span(Struct, frozen=True):
    """The part of a batch that belongs to one sequence: `tokens` new tokens on top of `start` cached ones.

    `table` are the KV blocks of the tokens [0, start + tokens), the new ones included.
    """

    start: int
    tokens: int
    table: Sequence[int]


class AttentionStep(Protocol):
    """The attention of one step, called once per layer when the layer's new keys and values are cached."""

    def __call__(self, queries: Tensor, cache: LayerCache, /) -> Tensor:
        """Map queries (tokens, heads, head_size) of the whole batch to (tokens, heads * head_size)."""


class Attention(Protocol):
    """A way to compute paged attention."""

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        """Prepare a step whose tokens lie span after span: single tokens first, by ascending `start`."""


class SdpaAttention:
    """Gathers pages and calls torch: once for single tokens of similar context, once for each longer span."""

    def __init__(self, *, kv_heads: int, block_tokens: int, dtype: torch.dtype, device: str) -> None:
        self._kv_heads, self._block_tokens = kv_heads, block_tokens
        self._dtype, self._device = dtype, device

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        """Group the single tokens; each longer span is a part of its own."""
        singles = sum(span.tokens == 1 for span in spans)
        groups = [self._singles(group) for group in _by_length(spans[:singles])]
        return _SdpaStep([*groups, *map(self._chunk, spans[singles:])])

    def _singles(self, group: Sequence[Span]) -> _Singles:
        blocks = self._blocks(group[-1])
        tables = [[*span.table[:blocks], *([0] * (blocks - len(span.table)))] for span in group]
        starts = torch.tensor([span.start for span in group], device=self._device)
        places = torch.arange(blocks * self._block_tokens, device=self._device)
        return _Singles(len(group), self._pages(tables), self._mask(places > starts[:, None, None, None]))

    def _chunk(self, span: Span) -> _Chunk:
        known = span.start + span.tokens
        mask = None
        if span.start:
            hidden = torch.ones(span.tokens, known, dtype=torch.bool, device=self._device).triu(
                span.start + 1
            )
            mask = self._mask(hidden)
        return _Chunk(span.tokens, known, self._pages([[*span.table[: self._blocks(span)]]]), mask)

    def _pages(self, tables: list[list[int]]) -> Tensor:
        """(sequences, kv_heads, blocks)"""
        return pages_of(torch.tensor(tables, device=self._device), self._kv_heads)

    def _mask(self, hidden: Tensor) -> Tensor:
        return torch.zeros(hidden.shape, dtype=self._dtype, device=self._device).masked_fill_(
            hidden, -torch.inf
        )

    def _blocks(self, span: Span) -> int:
        return -(-(span.start + span.tokens) // self._block_tokens)


class _Singles(Struct, frozen=True):
    """One new token for each of several sequences, their keys padded to the longest."""

    tokens: int
    pages: Tensor
    mask: Tensor

    def attend(self, queries: Tensor, cache: LayerCache) -> Tensor:
        """Let the query heads that share a KV head be that head's queries."""
        keys, values = _gather(cache.keys, self.pages), _gather(cache.values, self.pages)
        grouped = queries.view(self.tokens, keys.shape[1], -1, keys.shape[-1])
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask).flatten(1)


class _Chunk(Struct, frozen=True):
    """Several new tokens of one sequence with `known` tokens in all; no mask means that it starts at 0."""

    tokens: int
    known: int
    pages: Tensor
    mask: Tensor | None

    def attend(self, queries: Tensor, cache: LayerCache) -> Tensor:
        """Attend to what is cached and, causally, to the chunk itself."""
        keys, values = (_gather(half, self.pages)[:, :, : self.known] for half in (cache.keys, cache.values))
        heads = queries.transpose(0, 1).unsqueeze(0)
        mixed = scaled_dot_product_attention(
            heads, keys, values, attn_mask=self.mask, is_causal=self.mask is None, enable_gqa=True
        )
        return mixed[0].transpose(0, 1).flatten(1)


class _SdpaStep:
    def __init__(self, parts: Sequence[_Singles | _Chunk]) -> None:
        self._parts = parts

    def __call__(self, queries: Tensor, cache: LayerCache, /) -> Tensor:
        mixed, at = [], 0
        for part in self._parts:
            mixed.append(part.attend(queries[at : at + part.tokens], cache))
            at += part.tokens
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _gather(half: Tensor, pages: Tensor) -> Tensor:
    """Copy pages (sequences, kv_heads, blocks) together: (sequences, kv_heads, tokens, head_size)."""
    sequences, heads, _ = pages.shape
    return half.index_select(0, pages.flatten()).view(sequences, heads, -1, half.shape[-1])


def _by_length(singles: Sequence[Span]) -> Iterator[Sequence[Span]]:
    first = 0
    for i, span in enumerate(singles):
        if span.start > 2 * singles[first].start + SPREAD_TOKENS:
            yield singles[first:i]
            first = i
    if singles:
        yield singles[first:]

"""Paged attention of one mixed batch: some sequences decode, others compute a chunk of their prompt.

`Attention` is the seam: a body is planned once per step and then called once per layer.
`SdpaAttention` is made of torch's scaled_dot_product_attention and needs no compiled extension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from millrace.engine.kv import KvShape, LayerCache

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

    def __init__(self, shape: KvShape, *, dtype: torch.dtype, device: str) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self._scratch = _Scratch(shape, dtype=dtype, device=device)

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        """Group the single tokens; each longer span is a part of its own."""
        singles = sum(span.tokens == 1 for span in spans)
        groups = [self._singles(group) for group in _by_length(spans[:singles])]
        return _SdpaStep([*groups, *map(self._chunk, spans[singles:])])

    def _singles(self, group: Sequence[Span]) -> _Singles:
        blocks = self._blocks(group[-1])
        tables = np.zeros((len(group), blocks), dtype=np.int64)
        for row, span in zip(tables, group, strict=True):
            row[: len(span.table)] = span.table[:blocks]
        hidden = np.arange(blocks * self._shape.block_tokens) > np.array([[span.start] for span in group])
        return _Singles(len(group), self._pages(tables), self._scratch, self._mask(hidden[:, None, None]))

    def _chunk(self, span: Span) -> _Chunk:
        known = span.start + span.tokens
        pages = self._pages(np.array([span.table[: self._blocks(span)]]))
        if not span.start:
            return _Chunk(span.tokens, known, pages, self._scratch, None)
        hidden = np.arange(known) > np.arange(span.start, known)[:, None]
        return _Chunk(span.tokens, known, pages, self._scratch, self._mask(hidden))

    def _pages(self, tables: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(self._shape.pages_of(tables)).to(self._device)

    def _mask(self, hidden: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Tensor:
        bias = np.where(hidden, np.float32(-np.inf), np.float32(0))
        return torch.from_numpy(bias).to(self._device, self._dtype)

    def _blocks(self, span: Span) -> int:
        return -(-(span.start + span.tokens) // self._shape.block_tokens)


class _Scratch:
    """Where gathered pages lie while a layer attends to them, as large as the largest gathering so far.

    To allocate it each time would cost more than to fill it: malloc returns blocks this large to the system.
    """

    def __init__(self, shape: KvShape, *, dtype: torch.dtype, device: str) -> None:
        self._pages = torch.empty(0, shape.block_tokens, shape.head_size, dtype=dtype, device=device)

    def gather(self, cache: LayerCache, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Copy pages (sequences, 2 * kv_heads, blocks): two of (sequences, kv_heads, tokens, head_size)."""
        if self._pages.shape[0] < pages.numel():
            self._pages = self._pages.new_empty((pages.numel(), *self._pages.shape[1:]))
        room = self._pages[: pages.numel()]
        torch.index_select(cache.pages, 0, pages.flatten(), out=room)
        return room.view(*pages.shape[:2], -1, room.shape[-1]).chunk(2, dim=1)  # type: ignore[return-value]


class _Singles(Struct, frozen=True):
    """One new token for each of several sequences, their keys padded to the longest."""

    tokens: int
    pages: Tensor
    scratch: _Scratch
    mask: Tensor

    def attend(self, queries: Tensor, cache: LayerCache) -> Tensor:
        """Let the query heads that share a KV head be that head's queries."""
        keys, values = self.scratch.gather(cache, self.pages)
        grouped = queries.view(self.tokens, keys.shape[1], -1, keys.shape[-1])
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=self.mask).flatten(1)


class _Chunk(Struct, frozen=True):
    """Several new tokens of one sequence with `known` tokens in all; no mask means that it starts at 0."""

    tokens: int
    known: int
    pages: Tensor
    scratch: _Scratch
    mask: Tensor | None

    def attend(self, queries: Tensor, cache: LayerCache) -> Tensor:
        """Attend to what is cached and, causally, to the chunk itself."""
        keys, values = (half[:, :, : self.known] for half in self.scratch.gather(cache, self.pages))
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


def _by_length(singles: Sequence[Span]) -> Iterator[Sequence[Span]]:
    first = 0
    for i, span in enumerate(singles):
        if span.start > 2 * singles[first].start + SPREAD_TOKENS:
            yield singles[first:i]
            first = i
    if singles:
        yield singles[first:]

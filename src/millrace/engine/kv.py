"""The paged KV cache: block-sized pages of keys and values, one head per page.

A page holds `block_tokens` tokens of one KV head of one layer, so gathering a sequence's pages yields
each head's keys as one contiguous (tokens, head_size) matrix, which is what attention reads.
"""

from __future__ import annotations

import torch
from msgspec import Struct
from torch import Tensor


class KvShape(Struct, frozen=True, kw_only=True):
    """The sizes of a cache: `blocks` blocks of `block_tokens` tokens over all layers and KV heads."""

    layers: int
    blocks: int
    block_tokens: int
    heads: int
    head_size: int

    def bytes(self, dtype: torch.dtype) -> int:
        """Memory the cache takes, keys and values together."""
        return (
            2 * self.layers * self.blocks * self.block_tokens * self.heads * self.head_size * dtype.itemsize
        )


class LayerCache:
    """Keys and values of one layer: each (blocks * heads, block_tokens, head_size)."""

    def __init__(self, shape: KvShape, *, dtype: torch.dtype, device: str) -> None:
        pages = (shape.blocks * shape.heads, shape.block_tokens, shape.head_size)
        self.keys = torch.zeros(pages, dtype=dtype, device=device)
        self.values = torch.zeros(pages, dtype=dtype, device=device)
        self._key_rows = self.keys.view(-1, shape.head_size)
        self._value_rows = self.values.view(-1, shape.head_size)

    def write(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values (tokens, heads, head_size) at `rows` (tokens * heads)."""
        self._key_rows.index_copy_(0, rows, keys.flatten(0, 1))
        self._value_rows.index_copy_(0, rows, values.flatten(0, 1))


def pages_of(blocks: Tensor, heads: int) -> Tensor:
    """Page ids of a table of block ids (..., blocks): (..., heads, blocks)."""
    return blocks.unsqueeze(-2) * heads + torch.arange(heads, device=blocks.device).unsqueeze(-1)


def rows_of(slots: Tensor, *, heads: int, block_tokens: int) -> Tensor:
    """Cache rows of token slots (block * block_tokens + offset): (tokens * heads)."""
    blocks, offsets = slots.div(block_tokens, rounding_mode="floor"), slots.remainder(block_tokens)
    pages = blocks.unsqueeze(-1) * heads + torch.arange(heads, device=slots.device)
    return (pages * block_tokens + offsets.unsqueeze(-1)).flatten()

"""The paged KV cache: a page holds the keys, or the values, of one head of one layer for one block of tokens.

Pages of a block lie together, keys first. Gathering a sequence's pages therefore yields each head's keys as
one contiguous (tokens, head_size) matrix, which is what attention reads.
"""

from __future__ import annotations

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]


class KvShape(Struct, frozen=True, kw_only=True):
    """The sizes of a cache: `blocks` blocks of `block_tokens` tokens over all layers and KV heads."""

    layers: int
    blocks: int
    block_tokens: int
    heads: int
    head_size: int

    @property
    def block_pages(self) -> int:
        """Pages of one block in one layer: a key and a value page per head."""
        return 2 * self.heads

    def bytes(self, dtype: torch.dtype) -> int:
        """Memory the cache takes."""
        pages = self.layers * self.blocks * self.block_pages
        return pages * self.block_tokens * self.head_size * dtype.itemsize

    def block_bytes(self, dtype: torch.dtype) -> int:
        """Memory one block takes over all layers."""
        return self.layers * self.block_pages * self.block_tokens * self.head_size * dtype.itemsize

    def pages_of(self, tables: Integers) -> Integers:
        """Pages of tables of block ids (sequences, blocks): (sequences, block_pages, blocks)."""
        return tables[:, None, :] * self.block_pages + np.arange(self.block_pages)[:, None]

    def rows_of(self, slots: Integers) -> Integers:
        """Rows of tokens at `slots` (block * block_tokens + offset): (tokens * block_pages)."""
        blocks, offsets = np.divmod(slots, self.block_tokens)
        pages = blocks[:, None] * self.block_pages + np.arange(self.block_pages)
        rows: Integers = (pages * self.block_tokens + offsets[:, None]).ravel()
        return rows


class LayerCache:
    """Keys and values of one layer: `pages` (blocks * block_pages, block_tokens, head_size)."""

    def __init__(self, shape: KvShape, *, dtype: torch.dtype, device: str) -> None:
        pages = (shape.blocks * shape.block_pages, shape.block_tokens, shape.head_size)
        self.pages = torch.zeros(pages, dtype=dtype, device=device)
        self._rows = self.pages.view(-1, shape.head_size)
        self._block_pages = shape.block_pages

    def write(self, rows: Tensor, keys_and_values: Tensor) -> None:
        """Store (tokens, block_pages, head_size) at `rows`."""
        self._rows.index_copy_(0, rows, keys_and_values.flatten(0, 1))

    def read(self, blocks: Tensor) -> Tensor:
        """Copy whole blocks: (blocks, block_pages, block_tokens, head_size)."""
        return self._blocks()[blocks]

    def replace(self, blocks: Tensor, pages: Tensor) -> None:
        """Overwrite whole blocks, with pages as `read` returns them."""
        self._blocks().index_copy_(0, blocks, pages)

    def _blocks(self) -> Tensor:
        return self.pages.view(-1, self._block_pages, *self.pages.shape[1:])

"""What a replica's prefix cache probably holds: the blocks of what was sent to it, oldest forgotten first.

Source: the approximate prefix index of llm-d and of SGLang's router, as a hash chain.
"""

from __future__ import annotations

from collections import OrderedDict

from millrace.core.request import Request

ENTRY_BYTES = 120  # an int key in an OrderedDict, measured with tracemalloc on CPython 3.11


class SentPrefixes:
    """Chained block hashes sent to one replica, within a byte budget."""

    __slots__ = ("_blocks", "_capacity")

    def __init__(self, budget_bytes: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._capacity = max(1, budget_bytes // ENTRY_BYTES)

    @property
    def held_bytes(self) -> int:
        """Memory the index takes now."""
        return len(self._blocks) * ENTRY_BYTES

    def matched_tokens(self, request: Request) -> int:
        """Return how many leading prompt tokens were sent before (a chain: the first miss ends it)."""
        known, matched = self._blocks, 0
        for block in request.blocks:
            if block not in known:
                break
            matched += 1
        return min(matched * request.block_tokens, request.prompt_tokens)

    def remember(self, request: Request) -> None:
        """Note that the prompt was sent; its first block becomes the last to be forgotten."""
        blocks = self._blocks
        for block in reversed(request.blocks[: self._capacity]):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)

    def forget(self) -> None:
        """Drop everything: the replica restarted with an empty cache."""
        self._blocks.clear()

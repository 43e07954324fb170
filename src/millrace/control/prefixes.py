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
        """Return how many leading prompt tokens were sent before."""
        if not request.blocks:
            return 0
        return min(self._matched(request.blocks) * request.block_tokens, request.prompt_tokens)

    def remember(self, request: Request) -> int:
        """Note that the prompt was sent, and return how many of its leading tokens had been before.

        Its first block becomes the last to be forgotten.
        """
        blocks, prompt = self._blocks, request.blocks
        if not prompt:
            return 0
        matched = self._matched(prompt)
        for block in reversed(prompt[matched : self._capacity]):
            blocks[block] = None
        for block in reversed(prompt[:matched]):
            blocks.move_to_end(block)
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)
        return min(matched * request.block_tokens, request.prompt_tokens)

    def _matched(self, prompt: tuple[int, ...]) -> int:
        """Return how many leading blocks are known, by halving the prompt.

        That is right because no block is ever known without those in front of it: a chained hash stands
        for them too, and of a chain the end is always forgotten first.
        """
        known = self._blocks
        if prompt[0] not in known:
            return 0
        least, most = 1, len(prompt)
        while least < most:
            middle = (least + most + 1) // 2
            if prompt[middle - 1] in known:
                least = middle
            else:
                most = middle - 1
        return least

    def forget(self) -> None:
        """Drop everything: the replica restarted with an empty cache."""
        self._blocks.clear()

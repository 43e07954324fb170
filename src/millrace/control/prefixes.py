"""What a replica's prefix cache probably holds: the blocks of what was sent to it, oldest forgotten first.

Source: the approximate prefix index of llm-d and of SGLang's router, as a hash chain.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from millrace.control.horizon import NO_TRAIL, Horizon, Trail
from millrace.core.blocks import in_common
from millrace.core.event import Finished
from millrace.core.request import Request

# What a block counts as. Measured with tracemalloc on CPython 3.11 it takes 44, and its prompt 250 more: less
# in all from four blocks that no later prompt has, and twice as much where there is only one.
ENTRY_BYTES = 120


class Sent(Struct, eq=False, gc=False):
    """What is left of a prompt: the blocks that no later one has, up to what was forgotten of its end.

    `at_tokens` were sent to the replica until then, this prompt included, as far as they were new to it.
    """

    blocks: tuple[int, ...]
    at_tokens: int


class SentPrefixes:
    """Chained block hashes sent to one replica, within a byte budget.

    Of a chain the end is always forgotten first, and whoever is sent again takes its blocks from earlier
    prompts. So what is left of a prompt is in one piece, and it is found by the first block of that.

    What was used longer ago than the engine's cache reaches back (`Horizon`) is known, but not believed to be
    there; of a prompt the end counts as used before the beginning.
    """

    __slots__ = ("_blocks", "_capacity", "_horizon", "_prompts", "_reach", "_sent_tokens", "_starts")

    def __init__(self, budget_bytes: int) -> None:
        self._horizon = Horizon()
        self._reach = self._horizon.tokens
        self._sent_tokens = 0
        self._prompts: OrderedDict[Sent, None] = OrderedDict()
        self._starts: dict[int, Sent] = {}
        self._blocks = 0
        self._capacity = max(1, budget_bytes // ENTRY_BYTES)

    @property
    def held_bytes(self) -> int:
        """Memory the index takes now, counted by blocks."""
        return self._blocks * ENTRY_BYTES

    def matched_tokens(self, request: Request) -> int:
        """Return how many leading prompt tokens were sent before, and are not too old."""
        prompt, starts, matched = request.blocks, self._starts, 0
        size, reach = request.block_tokens, self._reach
        while matched < len(prompt) and (sent := starts.get(prompt[matched])):
            start = matched
            matched += in_common(sent.blocks, prompt, matched)
            if matched * size > sent.at_tokens + reach:
                matched = max(start, (sent.at_tokens + reach) // size)
                break
        return min(matched * size, request.prompt_tokens)

    def matched_by_medium(self, request: Request) -> tuple[int, int, int]:
        """Return them as being on the device: of other media nothing is known."""
        return self.matched_tokens(request), 0, 0

    def remember(self, request: Request) -> int:
        """Note that the prompt was sent, and return how many of its leading tokens are believed there.

        Its first block becomes the last to be forgotten.
        """
        return self.send(request, pending_tokens=0)[0]

    def send(self, request: Request, *, pending_tokens: int) -> tuple[int, Trail]:
        """Remember a prompt that is sent behind so many tokens in a queue; return what was known too."""
        prompt, size, most = request.blocks, request.block_tokens, request.prompt_tokens
        believed, pieces = 0, self._take(prompt)
        for end, at_tokens in pieces:
            reached = (at_tokens + self._reach) // size
            believed = max(believed, min(end, reached))
            if reached < end:
                break
        believed_tokens = min(believed * size, most)
        trail = NO_TRAIL
        if pieces:
            now = self._sent_tokens
            trail = Trail(tuple([(min(end * size, most), now - at) for end, at in pieces]), pending_tokens)
        self._pass(most - believed_tokens)
        if prompt:
            self._keep(prompt, pieces[-1][0] if pieces else 0)
        return believed_tokens, trail

    def learn(self, request: Request, trail: Trail, finished: Finished, *, new_tokens: int) -> None:
        """Learn from what an engine found of a prompt of which so many tokens were taken to be new.

        Those of them that it did find are not made up for; the answer is in its cache as well.
        """
        found_tokens, more_tokens = finished.cached_tokens, finished.output_tokens or 0
        if found_tokens is not None and trail.pieces:
            if finished.prompt_tokens:  # which may have been a guess
                found_tokens = found_tokens * request.prompt_tokens // finished.prompt_tokens
            self._horizon.learn(trail, found_tokens, request.block_tokens)
            more_tokens += max(0, request.prompt_tokens - found_tokens - new_tokens)
        self._pass(more_tokens)

    def assume(self, cache_tokens: int) -> None:
        """Note how many tokens the engine's cache has room for."""
        self._horizon.assume(cache_tokens)
        self._pass(0)

    def forget(self) -> None:
        """Drop everything: the replica restarted with an empty cache."""
        self._prompts.clear()
        self._starts.clear()
        self._blocks = 0

    def _pass(self, tokens: int) -> None:
        """Note that so many tokens more went through the engine's cache."""
        self._sent_tokens += tokens
        self._reach = self._horizon.tokens - self._sent_tokens

    def _take(self, prompt: tuple[int, ...]) -> list[tuple[int, int]]:
        """Take the leading blocks that are known from the prompts that have them.

        Return where in the prompt those of each end, and its `at_tokens`.
        """
        at, starts, pieces = 0, self._starts, []
        while at < len(prompt) and (sent := starts.pop(prompt[at], None)):
            count = in_common(sent.blocks, prompt, at)
            at += count
            pieces.append((at, sent.at_tokens))
            sent.blocks = sent.blocks[count:]
            if sent.blocks:
                starts[sent.blocks[0]] = sent
            else:
                del self._prompts[sent]
        return pieces

    def _keep(self, prompt: tuple[int, ...], taken: int) -> None:
        """Note a prompt of which so many blocks were taken from others."""
        sent = Sent(prompt[: self._capacity], self._sent_tokens)
        self._prompts[sent] = None
        self._starts[prompt[0]] = sent
        self._blocks += len(sent.blocks) - taken
        if self._blocks > self._capacity:
            self._forget_oldest(self._blocks - self._capacity)

    def _forget_oldest(self, blocks: int) -> None:
        """Forget so many blocks of the oldest prompts, of each its end first."""
        while blocks:
            sent = next(iter(self._prompts))
            left = max(0, len(sent.blocks) - blocks)
            blocks -= len(sent.blocks) - left
            if not left:
                del self._prompts[sent]
                self._starts.pop(sent.blocks[0], None)  # which is there if the hashes are chained
            sent.blocks = sent.blocks[:left]
        self._blocks = self._capacity

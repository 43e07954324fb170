"""How long a prefix stays in a replica's cache, learned from what its engine found there of each prompt.

A cache that forgets first what was not used for longest reaches back as many distinct tokens as it has room
for (Mattson et al., IBM Systems Journal 1970). The age of a prefix here is a lower bound of these: the tokens
that were new to the cache since it was used, which cost nothing to count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from msgspec import Struct

UNKNOWN = 1 << 62  # tokens: as good as for ever
SAMPLES = 32  # of each kind that are remembered
PRIOR = 2  # samples that what is assumed counts for
ROUNDING = 8  # engines find whole blocks, and count tokens of their own: a part in so many says nothing


class Trail(Struct, frozen=True, gc=False):
    """What was known of a prompt when it was sent, in tokens.

    `pieces` are pairs: where in the prompt one ends, and how many tokens were new to the cache since it was
    used. What was used no longer than `pending_tokens` ago may not have been computed yet.
    """

    pieces: tuple[tuple[int, int], ...] = ()
    pending_tokens: int = 0


NO_TRAIL = Trail()


class Horizon:
    """The age from which on prompts are gone, as far as is known: `tokens` is it.

    It is the age that contradicts the fewest of the latest samples, and the assumed one if that contradicts
    hardly more: one answer alone says little, since prompts can be missed for other reasons.
    """

    __slots__ = ("_assumed", "_gone", "_kept", "tokens")

    def __init__(self) -> None:
        self._gone: deque[int] = deque(maxlen=SAMPLES)
        self._kept: deque[int] = deque(maxlen=SAMPLES)
        self._assumed = self.tokens = UNKNOWN

    def assume(self, tokens: int) -> None:
        """Note how far the cache reaches back at most, unless it was seen to reach further."""
        self._assumed = tokens
        self._choose()

    def learn(self, trail: Trail, found_tokens: int, block_tokens: int) -> None:
        """Learn from a prompt how old what was found of it was, and what was not although it was known."""
        known = trail.pieces[-1][0]
        missed = known - found_tokens > max(block_tokens, known // ROUNDING)
        found, start = found_tokens if missed else known, 0
        for end, age in trail.pieces:
            if found > start:
                self._note(self._kept, age + min(found, end) - 1)
            if found < end:
                if age + found > trail.pending_tokens:
                    self._note(self._gone, age + found)
                break
            start = end

    def contradicting(self, tokens: int) -> int:
        """Count the samples that were gone though younger than that, or kept though not younger."""
        gone = sum(age < tokens for age in self._gone)
        return gone + sum(age >= tokens for age in self._kept)

    def _note(self, samples: deque[int], age: int) -> None:
        samples.append(age)
        if (age >= self.tokens) == (samples is self._kept):
            self._choose()

    def _choose(self) -> None:
        """Take the best age: where something was gone, or just above where something was kept.

        Of several that are as good the highest is taken.
        """
        gone, kept = sorted(self._gone), sorted(self._kept)
        ages = [*gone, *(age + 1 for age in kept)]
        contradicted = [(bisect_left(gone, age) + len(kept) - bisect_left(kept, age), -age) for age in ages]
        least, best = min(contradicted, default=(0, -self._assumed))
        assumed = self.contradicting(self._assumed) <= least + PRIOR
        self.tokens = self._assumed if assumed else -best

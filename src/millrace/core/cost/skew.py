"""How much slower attention is when decodes are unequally long than when all are as long as their mean.

Source: LLMServingSim 2.0 (casys-kaist, MIT), which times batches of long and short decodes and finds
t = t(mean) + alpha * (t(longest) - t(mean)), with an alpha for every kind of batch.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf

from msgspec import Struct

from millrace.core.cost.shape import StepShape

Kind = tuple[int, str, str, str, str]
"""The prompt tokens of a batch, and the names of the bins that its other properties fall in."""


class Bins(Struct, frozen=True):
    """Names for ranges of a number: name i is for those above `edges[i]`, up to and including the next."""

    edges: tuple[float, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.edges) != len(self.names) + 1:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) - 1} bins, but {len(self.names)} are named"
            )

    def name(self, value: float) -> str:
        """Return the name of the bin that the value is in, or of the nearest one."""
        return self.names[min(max(bisect_left(self.edges, value) - 1, 0), len(self.names) - 1)]


class Skew(Struct, frozen=True, kw_only=True):
    """The alpha of each kind of batch, and `default` for kinds that were not timed.

    A kind is made of the prompt tokens, and of bins of the decodes, of where their mean lies between the
    shortest and the longest (0 to 1), of the longest one, and of the prompt's cache.
    """

    default: float
    decodes: Bins = Bins((0, 1e9), ("any",))
    rate: Bins = Bins((-1, 1), ("any",))
    longest: Bins = Bins((0, 1e9), ("any",))
    cached: Bins = Bins((-1, 1e9), ("any",))
    alphas: dict[Kind, float] = {}

    def alpha(self, shape: StepShape, cached: float) -> float:
        """Return how far beyond the mean the batch's attention lies on the way to the longest's."""
        longest, shortest = shape.decode_longest_tokens, shape.decode_shortest_tokens
        if longest <= shortest:
            return 0.0
        # Of whole numbers that stay the same while all decodes grow, and so the rate does to the last bit.
        above = shape.decode_context_tokens - shape.decodes * shortest
        rate = above / (shape.decodes * (longest - shortest))
        kind = (
            shape.prefill_tokens,
            self.decodes.name(shape.decodes),
            self.rate.name(rate),
            self.longest.name(longest),
            self.cached.name(cached),
        )
        return self.alphas.get(kind, self.default)

    def room(self, longest: int) -> float:
        """Return by how many tokens the longest decode may grow before the batch may be of another kind."""
        i = bisect_left(self.longest.edges, longest)
        return self.longest.edges[i] - longest if self.alphas and i < len(self.longest.edges) else inf

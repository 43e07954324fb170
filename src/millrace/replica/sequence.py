"""One request inside a replica."""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.replica.table import Table


class Pace:
    """Counts the iterations that sequences which decode together have made."""

    __slots__ = ("iteration",)

    def __init__(self) -> None:
        self.iteration = 0


@dataclass(slots=True, eq=False)
class Sequence:
    """What the replica knows of one request: `length` tokens, `computed` of them are in the KV cache.

    `blocks` are chained hashes of its full leading blocks; an engine appends to it as generated tokens
    fill further blocks. `table` lists the physical KV blocks it holds, in order; the first `published`
    of them were offered to the prefix cache. `cached_tokens` were found there when it was first admitted;
    `rank` grows with every admission to the replica. `adapter` is the low-rank adapter that it needs.
    `priority` is greater for who is more important, and below 0 for offline work.
    One that `keeps` its blocks when it is complete does so until it is aborted: others will read them. One
    that `joined` came with its KV cache from elsewhere.

    While a sequence decodes it has a `pace`, and gains a token with each of its iterations without being
    touched: `base` is what it has computed, less those iterations. `sampled` is only kept up without one.
    """

    id: str
    prompt_tokens: int
    max_tokens: int
    blocks: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    preemptions: int = 0
    table: Table = field(default_factory=Table)
    published: int = 0
    rank: int = 0
    base: int = 0
    sampled: int = 0
    pace: Pace | None = None
    adapter: str | None = None
    keeps: bool = False
    priority: int = 0
    joined: bool = False

    @property
    def computed(self) -> int:
        """Tokens in the KV cache."""
        return self.base + self.pace.iteration if self.pace else self.base

    @property
    def generated(self) -> int:
        """Tokens sampled so far: who decodes lacks exactly the last of them in the KV cache."""
        return self.base + self.pace.iteration - self.prompt_tokens + 1 if self.pace else self.sampled

    @property
    def length(self) -> int:
        """Tokens known so far: the prompt and what was generated."""
        return self.prompt_tokens + self.generated

    @property
    def missing(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 when decoding."""
        return 1 if self.pace else self.prompt_tokens + self.sampled - self.base

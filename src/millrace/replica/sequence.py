"""One request inside a replica."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """What the replica knows of one request: `length` tokens, `computed` of them are in the KV cache.

    `blocks` are chained hashes of its full leading blocks; an engine appends to it as generated tokens
    fill further blocks. `table` lists the physical KV blocks it holds, in order; the first `published`
    of them were offered to the prefix cache. `cached_tokens` were found there when it was first admitted.
    """

    id: str
    prompt_tokens: int
    max_tokens: int
    blocks: list[int] = field(default_factory=list)
    generated: int = 0
    computed: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    table: list[int] = field(default_factory=list)
    published: int = 0

    @property
    def length(self) -> int:
        """Tokens known so far: the prompt and what was generated."""
        return self.prompt_tokens + self.generated

    @property
    def missing(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 when decoding."""
        return self.prompt_tokens + self.generated - self.computed

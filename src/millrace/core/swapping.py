"""What a replica knows of the memory of its machine, to which KV blocks of preempted sequences may go."""

from __future__ import annotations

from msgspec import Struct


class Swapping(Struct, frozen=True, kw_only=True):
    """A host tier of `host_blocks` KV blocks, and the link to it.

    Each copy operation takes `copy_s`, and each block `block_s` more. A token takes `token_s` to compute
    again. With either unknown (None), preempted sequences are computed again. `grouped` copies blocks in a
    row by one operation, `overlapped` beside the steps, and a host copy is kept for the next time if it is
    `reusing` them. `preempting` lets the less important give way to the more important who wait.
    """

    host_blocks: int = 0
    copy_s: float = 0.0
    block_s: float | None = None
    token_s: float | None = None
    grouped: bool = True
    overlapped: bool = True
    reusing: bool = True
    preempting: bool = False

    def seconds(self, blocks: int, copies: int) -> float:
        """Seconds the link is busy with so many blocks, in so many operations."""
        return copies * self.copy_s + blocks * (self.block_s or 0.0)

    def pays(self, tokens: int, seconds: float) -> bool:
        """Whether copying for so many seconds is sooner than to compute so many tokens; no if unknown."""
        return self.block_s is not None and self.token_s is not None and seconds < tokens * self.token_s

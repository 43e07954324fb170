"""How long a replica can do the same: iterations in a row that one plan stands for.

Between two changes of a batch every decode grows by a token an iteration, so nothing has to be decided
again until somebody ends, a prompt is complete, or the KV cache is full. A simulator jumps there.
"""

from __future__ import annotations

from millrace.core.replica import Limits
from millrace.replica.executor import Chunk, Step


def iterations(step: Step, limits: Limits, free_blocks: int) -> int:
    """Return how many iterations like this one follow each other if nobody comes or leaves, at least 1.

    The last of them may be the one in which a sequence gets its last token.
    """
    count = _until_a_change(step, limits)
    return count if count <= 1 else _fitting(step.chunks, count, limits.block_tokens, free_blocks)


def taken_blocks(step: Step, count: int, block_tokens: int) -> int:
    """Return how many more blocks the sequences hold while the last of so many iterations is under way.

    `count` is more than 1, so all that emit are decodes.
    """
    return _blocks([(c.start, len(c.sequence.table)) for c in step.chunks if c.emits], count, block_tokens)


def _until_a_change(step: Step, limits: Limits) -> int:
    lives = [c.sequence.max_tokens - c.sequence.generated for c in step.chunks if c.emits]
    if step.shape.prefills:
        prompt = [c for c in step.chunks if not c.emits]
        if step.shape.prefills > 1 or not prompt or step.shape.tokens < limits.step_tokens:
            return 1
        # The last chunk of a long prompt may leave room for others, so it is a step of its own.
        lives.append(-(-prompt[0].sequence.missing // prompt[0].tokens) - 1)
    return min(lives)


def _fitting(chunks: tuple[Chunk, ...], count: int, block_tokens: int, free_blocks: int) -> int:
    """Return the most iterations, up to `count`, that the free blocks allow; the first has what it needs."""
    if len(chunks) * (count // block_tokens + 1) <= free_blocks:
        return count
    decodes = [(c.start, len(c.sequence.table)) for c in chunks if c.emits]
    if _blocks(decodes, count, block_tokens) <= free_blocks:
        return count
    low, high = 1, count
    while high - low > 1:
        middle = (low + high) // 2
        if _blocks(decodes, middle, block_tokens) <= free_blocks:
            low = middle
        else:
            high = middle
    return low


def _blocks(decodes: list[tuple[int, int]], count: int, block_tokens: int) -> int:
    """Blocks that so many iterations take, for sequences of (computed tokens, blocks held)."""
    return sum(-(-(computed + count) // block_tokens) - held for computed, held in decodes)

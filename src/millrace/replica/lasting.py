"""How long a replica can do the same: iterations in a row that one plan stands for.

Between two changes of a batch every decode grows by a token an iteration, so nothing has to be decided
again until somebody ends, a prompt is complete, or the KV cache is full. A simulator jumps there.
"""

from __future__ import annotations

from millrace.core.cost import ENDLESS
from millrace.replica.batch import Batch
from millrace.replica.executor import Run


def iterations(run: Run, batch: Batch) -> int:
    """Return how many iterations like this one follow each other if nobody comes or leaves, at least 1.

    The last of them may be the one in which a sequence gets its last token.
    """
    decodes, pool = batch.decodes, batch.pool
    if run.paused or decodes.naming:
        return 1
    count, free_blocks = decodes.until_end() if run.decodes else ENDLESS, pool.free
    if run.prefills:
        chunk = run.prefills[0]
        if len(run.prefills) > 1 or chunk.emits or run.shape.tokens < batch.step_tokens:
            return 1
        # The last chunk of a long prompt may leave room for others, so it is a step of its own.
        count = min(count, -(-chunk.sequence.missing // chunk.tokens) - 1)
        if chunk.sequence.blocks:
            # What the prompt publishes on the way depends on what has been forgotten by then: forget nothing.
            free_blocks = pool.blank
    return decodes.fitting(count, free_blocks) if run.decodes and count > 1 else count

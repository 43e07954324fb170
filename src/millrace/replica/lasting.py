"""How long a replica can do the same: iterations in a row that one plan stands for.

Between two changes of a batch every decode grows by a token an iteration, so nothing has to be decided
again until somebody ends, a prompt is complete, or the KV cache is full. A simulator jumps there.
"""

from __future__ import annotations

from millrace.replica.batch import Batch
from millrace.replica.executor import Run


def chunks_in_a_row(run: Run, batch: Batch) -> int:
    """Return how many iterations follow each other, at least 1, that all compute as much of one prompt.

    The last of them may be the one in which a decode gets its last token.
    """
    decodes, pool, prefills = batch.decodes, batch.pool, run.prefills
    chunk = prefills[0]
    if chunk.emits or len(prefills) > 1 or run.shape.tokens < batch.step_tokens:
        return 1
    # The last chunk of a long prompt may leave room for others, so it is a step of its own.
    count = -(-chunk.sequence.missing // chunk.tokens) - 1
    if count == 1 or not run.decodes:
        return count
    # What the prompt publishes on the way depends on what has been forgotten by then: forget nothing.
    return decodes.lasting(pool.blank if chunk.sequence.blocks else pool.free, count)

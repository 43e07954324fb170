"""How long a replica can do the same: iterations in a row that one plan stands for.

Between two changes of a batch every decode grows by a token an iteration, so nothing has to be decided
again until somebody ends, a prompt is complete, or the KV cache is full. A simulator jumps there.
"""

from __future__ import annotations

from millrace.core.cost import StepShape
from millrace.replica.batch import Batch
from millrace.replica.executor import Chunk, Run


def chunks_in_a_row(run: Run, batch: Batch, *, eager: bool) -> int:
    """Return how many iterations follow each other, at least 1, that all compute as much of one prompt.

    If the policy is `eager`, the run may be given a closing one, which is counted too. The last of all may
    be the one in which a decode gets its last token.
    """
    decodes, pool, prefills = batch.decodes, batch.pool, run.prefills
    chunk = prefills[0]
    if chunk.emits or len(prefills) > 1 or run.shape.tokens < batch.step_tokens:
        return 1
    # The last chunk of a long prompt may leave room for others, so it is a step of its own.
    most = -(-chunk.sequence.missing // chunk.tokens) - 1
    closes = eager and not batch.queue and len(batch.prefilling) == 1
    count = most + closes
    if run.decodes and count > 1:
        # What the prompt publishes on the way depends on what has been forgotten by then: forget nothing.
        room = pool.blank if chunk.sequence.blocks else pool.free
        count = decodes.lasting(room, count)
    if count > most:
        run.closing, run.alike = _closing(run, most), most
    return count if run.closing else min(count, most)


def _closing(run: Run, count: int) -> Run | None:
    """Form the iteration after so many like ones; None if it computes one token again, as a decode does."""
    (chunk,), shape = run.prefills, run.shape
    sequence, begun = chunk.sequence, count * chunk.tokens
    start, tokens = chunk.start + begun, sequence.missing - begun
    if tokens == 1 and sequence.sampled:
        return None
    longer = count if shape.decode_longest_tokens else 0
    last = StepShape(
        shape.decodes,
        shape.decode_context_tokens + count * shape.decodes,
        1,
        tokens,
        tokens * start + tokens * (tokens + 1) // 2,
        shape.decodes + 1,
        shape.decode_longest_tokens + longer,
        shape.decode_shortest_tokens + longer,
    )
    return Run(last, run.decodes, (Chunk(sequence, start, tokens, True),))

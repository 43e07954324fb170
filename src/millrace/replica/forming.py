"""Turn what a batching policy planned into what the replica does next."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many

from millrace.core.batch import Grant, Plan
from millrace.core.cost import StepShape
from millrace.replica.batch import Batch
from millrace.replica.executor import Chunk, Run
from millrace.replica.sequence import Sequence


def form(plan: Plan, batch: Batch, *, lengths: bool) -> Run | None:
    """Admit the waiting sequences among the grants while the KV cache has room; None if nothing is to do.

    With `lengths`, the shape says how long the longest and the shortest decode are. Raises ValueError for a
    plan beyond the limits.
    """
    decodes = batch.decodes
    count = len(decodes.members)
    if plan.grants or plan.decodes != count:
        return _mixed(plan, batch, lengths)
    if not count:
        return None
    _check_tokens(count, batch)
    longest, shortest = decodes.lengths() if lengths else (0, 0)
    return Run(StepShape(count, decodes.context_tokens, 0, 0, 0, count, longest, shortest), count)


def chunks_of(run: Run, batch: Batch) -> tuple[Chunk, ...]:
    """Tell the sequences of a run apart, for one iteration: decodes in the order of admission, then prefills.

    Each decode gets the block that its token goes to.
    """
    going = _going(run, batch) if run.decodes else ()
    return (*map(batch.decodes.next_chunk, going), *run.prefills)


def _going(run: Run, batch: Batch) -> Iterator[Sequence]:
    paused = set(run.paused)
    return (sequence for sequence in batch.running if sequence.pace and sequence not in paused)


def _mixed(plan: Plan, batch: Batch, lengths: bool) -> Run | None:
    grants, known = plan.grants, batch.known
    if len(grants) > 1 and len({grant.id for grant in grants}) < len(grants):
        raise ValueError("batching granted one sequence twice in a step: grant it once")
    picked: list[Sequence] = []
    prefills: list[Chunk] = []
    for grant in grants:
        sequence = known[grant.id]
        if sequence.pace:
            picked.append(sequence)
        elif sequence.table or batch.admit(sequence):
            prefills.append(_chunk(sequence, grant))
    going = plan.decodes + len(picked)
    paused = _paused(plan.decodes, picked, batch) if going else []
    if not going and not prefills:
        return None
    shape = _shape(going, paused, prefills, batch, lengths)
    _check_tokens(shape.decodes + shape.prefill_tokens, batch)
    return Run(shape, going, prefills, paused)


def _chunk(sequence: Sequence, grant: Grant) -> Chunk:
    missing = sequence.prompt_tokens + sequence.sampled - sequence.base
    tokens = min(grant.tokens, missing)
    if tokens < 1:
        raise ValueError(f"batching granted {grant.tokens} tokens to {grant.id!r}: grant at least 1")
    return Chunk(sequence, sequence.base, tokens, tokens == missing)


def _paused(first: int, picked: Many[Sequence], batch: Batch) -> Many[Sequence]:
    """The decodes that do not go on when only the first so many do, and those that were picked."""
    count = len(batch.decodes.members)
    if not picked and first == count:
        return ()
    if first > count:
        raise ValueError(f"batching let {first} decodes go on, but there are {count}")
    members = [sequence for sequence in batch.running if sequence.pace]
    going = {*members[:first], *picked}
    if len(going) < first + len(picked):
        raise ValueError("batching granted one sequence twice in a step: grant it once")
    return [sequence for sequence in members if sequence not in going]


def _shape(
    going: int, paused: Many[Sequence], prefills: Many[Chunk], batch: Batch, lengths: bool
) -> StepShape:
    """Count what a step does. Who computes again a single token after all others decodes, too."""
    decodes, context = going, 0
    if going:
        context = batch.decodes.context_tokens - sum(sequence.computed for sequence in paused)
    prefilled = attended = emits = 0
    again: list[Chunk] = []
    for chunk in prefills:
        start, tokens = chunk.start, chunk.tokens
        if tokens == 1 and chunk.emits and chunk.sequence.sampled:
            again.append(chunk)
            decodes += 1
            context += start
            continue
        prefilled += tokens
        attended += tokens * start + tokens * (tokens + 1) // 2
        emits += chunk.emits
    longest, shortest = _lengths(going, paused, again, batch) if lengths else (0, 0)
    count = len(prefills) - len(again)
    return StepShape(decodes, context, count, prefilled, attended, emits + decodes, longest, shortest)


def _lengths(going: int, paused: Many[Sequence], again: Many[Chunk], batch: Batch) -> tuple[int, int]:
    """The most and the least cached tokens of one decode; 0 if there is none."""
    if going and not paused and not again:
        return batch.decodes.lengths()
    lengths = [chunk.start for chunk in again]
    if going:
        lengths += [sequence.computed for sequence in batch.decodes.members if sequence not in paused]
    return (max(lengths), min(lengths)) if lengths else (0, 0)


def _check_tokens(tokens: int, batch: Batch) -> None:
    if tokens > batch.step_tokens:
        raise ValueError(f"batching granted {tokens} tokens; step_tokens allows {batch.step_tokens}")

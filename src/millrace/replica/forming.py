"""Turn what a batching policy planned into what the replica does next."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many

from msgspec.structs import replace

from millrace.core.batch import Plan
from millrace.core.cost import StepShape
from millrace.replica.batch import Batch
from millrace.replica.executor import Chunk, Run
from millrace.replica.sequence import Sequence


def decoding(batch: Batch, lengths: bool) -> Run | None:
    """Form the plan that all decodes go on, of which there are at most as many as a step holds; None if none.

    With `lengths`, the shape says how long the longest and the shortest decode are.
    """
    decodes = batch.decodes
    count = len(decodes.members)
    if not count:
        return None
    if lengths:
        longest, shortest = decodes.lengths()
        return Run(StepShape(count, decodes.context_tokens, 0, 0, 0, count, longest, shortest), count)
    return Run(StepShape(count, decodes.context_tokens, 0, 0, 0, count), count)


def form(plan: Plan, batch: Batch, lengths: bool) -> Run | None:
    """Form any plan: admit the waiting sequences among the grants while the KV cache has room.

    None if nothing is to do. Otherwise as `decoding`. Raises ValueError for a plan beyond the limits.
    """
    grants, known = plan.grants, batch.known
    if len(grants) > 1 and len({grant.id for grant in grants}) < len(grants):
        raise ValueError("batching granted one sequence twice in a step: grant it once")
    yielding = _yielding(plan, batch)
    picked: list[Sequence] = []
    prefills: list[Chunk] = []
    for grant in grants:
        sequence = known[grant.id]
        if sequence.pace:
            picked.append(sequence)
        elif sequence.table or _admitted(sequence, yielding, batch):
            start, tokens = sequence.base, grant.tokens
            missing = sequence.prompt_tokens + sequence.sampled - start
            if tokens > missing:
                tokens = missing
            if tokens < 1:
                raise ValueError(f"batching granted {grant.tokens} tokens to {grant.id!r}: grant at least 1")
            prefills.append(Chunk(sequence, start, tokens, tokens == missing))
    going = plan.decodes + len(picked)
    if not going and not prefills:
        return None
    paused: Many[Sequence] = ()
    context = 0
    if going:
        context = batch.decodes.context_tokens
        if picked or going != len(batch.decodes.members):
            paused = _paused(plan.decodes, picked, batch)
            context -= sum(sequence.computed for sequence in paused)
    shape = _shape(going, context, prefills)
    if shape.decodes + shape.prefill_tokens > batch.step_tokens:
        raise _too_many(shape.tokens, batch)
    if lengths:
        longest, shortest = _lengths(going, paused, prefills, batch)
        shape = replace(shape, decode_longest_tokens=longest, decode_shortest_tokens=shortest)
    return Run(shape, going, prefills, paused, most=plan.steps)


def _yielding(plan: Plan, batch: Batch) -> list[Sequence]:
    """Who may lose its blocks, last of them first."""
    if not plan.yields:
        return []
    granted = {grant.id for grant in plan.grants}
    for name in plan.yields:
        if name in granted or batch.known[name] not in batch.running:
            raise ValueError(f"batching lets {name!r} yield, which has a grant or does not run: leave it out")
    return [batch.known[name] for name in reversed(plan.yields)]


def _admitted(sequence: Sequence, yielding: list[Sequence], batch: Batch) -> bool:
    """Admit a waiting sequence, to the place of those who yield if it takes that."""
    while yielding and len(batch.running) >= batch.sequences:
        batch.evict(yielding.pop())
    while not batch.admit(sequence):
        if not yielding or batch.preempting:
            return False
        batch.evict(yielding.pop())
    return True


def chunks_of(run: Run, batch: Batch) -> tuple[Chunk, ...]:
    """Tell the sequences of a run apart, for one iteration: decodes in the order of admission, then prefills.

    Each decode gets the block that its token goes to.
    """
    going = _going(run, batch) if run.decodes else ()
    return (*map(batch.decodes.next_chunk, going), *run.prefills)


def _going(run: Run, batch: Batch) -> Iterator[Sequence]:
    paused = set(run.paused)
    return (sequence for sequence in batch.running if sequence.pace and sequence not in paused)


def _paused(first: int, picked: Many[Sequence], batch: Batch) -> Many[Sequence]:
    """The decodes that do not go on when only the first so many do, and those that were picked."""
    count = len(batch.decodes.members)
    if first > count:
        raise ValueError(f"batching let {first} decodes go on, but there are {count}")
    members = [sequence for sequence in batch.running if sequence.pace]
    going = {*members[:first], *picked}
    if len(going) < first + len(picked):
        raise ValueError("batching granted one sequence twice in a step: grant it once")
    return [sequence for sequence in members if sequence not in going]


def _shape(decodes: int, context: int, prefills: Many[Chunk]) -> StepShape:
    """Count what a step does. Who computes again a single token after all others decodes, too, and so does
    the last token of a prompt whose KV cache came from elsewhere: to an engine it is a query of one token.
    """
    count = prefilled = attended = emits = 0
    for chunk in prefills:
        start, tokens = chunk.start, chunk.tokens
        if tokens == 1 and _again(chunk):
            decodes += 1
            context += start
            continue
        count += 1
        prefilled += tokens
        attended += tokens * start + tokens * (tokens + 1) // 2
        emits += chunk.emits
    return StepShape(decodes, context, count, prefilled, attended, emits + decodes)


def _again(chunk: Chunk) -> bool:
    sequence = chunk.sequence
    return chunk.emits and chunk.tokens == 1 and (sequence.sampled > 0 or sequence.joined)


def _lengths(going: int, paused: Many[Sequence], prefills: Many[Chunk], batch: Batch) -> tuple[int, int]:
    """The most and the least cached tokens of one decode; 0 if there is none."""
    lengths = [chunk.start for chunk in prefills if _again(chunk)]
    if going and not paused and not lengths:
        return batch.decodes.lengths()
    if going:
        lengths += [sequence.computed for sequence in batch.decodes.members if sequence not in paused]
    return (max(lengths), min(lengths)) if lengths else (0, 0)


def _too_many(tokens: int, batch: Batch) -> ValueError:
    return ValueError(f"batching granted {tokens} tokens; step_tokens allows {batch.step_tokens}")

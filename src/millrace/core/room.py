"""How much of some prompts fits into a step that is to end in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.batch import BatchView, Grant, SequenceView
from millrace.core.cost.shape import StepShape, StepTimes


class Prompt(Struct, frozen=True, gc=False):
    """What a sequence has in the KV cache, and what it lacks."""

    id: str
    cached: int
    missing: int


def prompts(
    batch: BatchView, begun: Iterable[SequenceView], waiting: Iterable[SequenceView], tokens: int
) -> list[Prompt]:
    """Return as many of those who have begun, and then of those who wait, as it takes to fill `tokens`."""
    found: list[Prompt] = []
    for sequence in begun:
        if tokens > 0:
            found.append(Prompt(sequence.id, sequence.computed, sequence.missing))
            tokens -= sequence.missing
    for sequence in waiting if tokens > 0 else ():
        missing = batch.missing_tokens(sequence)
        found.append(Prompt(sequence.id, sequence.length - missing, missing))
        tokens -= missing
        if tokens <= 0:
            break
    return found


def grants(found: Sequence[Prompt], tokens: int) -> list[Grant]:
    """Grant so many tokens in all, to the first prompts first."""
    given = []
    for prompt in found:
        if tokens > 0:
            given.append(Grant(prompt.id, min(prompt.missing, tokens)))
            tokens -= prompt.missing
    return given


def beside(shape: StepShape, found: Sequence[Prompt], tokens: int) -> StepShape:
    """Return the shape of a step that also computes so many tokens of the prompts."""
    count = pairs = done = 0
    left = tokens
    for prompt in found:
        if left <= 0:
            break
        chunk = min(prompt.missing, left)
        left -= chunk
        count += 1
        pairs += chunk * prompt.cached + chunk * (chunk + 1) // 2
        done += chunk == prompt.missing
    return replace(
        shape,
        prefills=shape.prefills + count,
        prefill_tokens=shape.prefill_tokens + tokens - max(0, left),
        prefill_attended_tokens=shape.prefill_attended_tokens + pairs,
        emits=shape.emits + done,
    )


def in_time(times: StepTimes | None, shape: StepShape, limit_s: float) -> bool:
    """Whether a step is predicted to take no longer; one that nobody can predict may take any time."""
    seconds = times.step_s(shape) if times else None
    return seconds is not None and seconds <= limit_s


def tokens_in_time(
    times: StepTimes | None, shape: StepShape, found: Sequence[Prompt], most: int, *, limit_s: float
) -> int:
    """Return how many tokens of the prompts, at most so many, a step of this shape has time for."""
    low, high = 0, min(most, sum(prompt.missing for prompt in found)) + 1
    if in_time(times, beside(shape, found, high - 1), limit_s):
        return high - 1
    while high - low > 1:
        middle = (low + high) // 2
        if in_time(times, beside(shape, found, middle), limit_s):
            low = middle
        else:
            high = middle
    return low

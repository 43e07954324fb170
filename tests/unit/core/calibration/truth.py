"""An engine of known prices that never jitters, as its clients would see it."""

from __future__ import annotations

from collections.abc import Iterable

from millrace.core.calibration import Point, Sample, Stream, answer_tokens, sample
from millrace.core.calibration.timings import prefill_steps
from millrace.core.cost import Linear, StepShape

TRUTH = Linear(
    base_s=0.002,
    per_token_s=1e-4,
    per_decode_s=5e-5,
    per_context_s=2e-7,
    per_attended_s=3e-8,
    per_emit_s=2e-5,
)
OVERHEAD_S = 0.0015
STEP_TOKENS = 512


def measured(designed: Iterable[Point]) -> list[Sample]:
    """The samples of all points."""
    found = [observed(point) for point in designed]
    assert all(found)
    return [one for one in found if one]


def observed(point: Point) -> Sample | None:
    """What the engine's answers say of a point."""
    streams, arrival = answers(point)
    return sample(point, streams, arrival, overhead_s=OVERHEAD_S, step_tokens=STEP_TOKENS)


def answers(point: Point) -> tuple[list[Stream], Stream | None]:
    """All streams start at 0 with a token each; a prompt joins after three steps, or alone at 0."""
    n, now_s = point.streams, 0.0
    times_s = [now_s] if n else []
    sent_s = 0.0
    joined = None
    chunks = prefill_steps(point.prompt_tokens, 0, STEP_TOKENS - n)
    for step in range(answer_tokens(point, STEP_TOKENS) - 1 if n else len(chunks)):
        if step == 3:
            sent_s = now_s
        joins = bool(chunks) and (not n or step >= 3)
        now_s += TRUTH.step_s(_step(point, step, chunks.pop(0) if joins else StepShape()))
        if n:
            times_s.append(now_s)
        if joins and not chunks:
            joined = Stream(sent_s=sent_s, tokens_s=(now_s if n else now_s + OVERHEAD_S,))
    return [Stream(sent_s=0.0, tokens_s=tuple(times_s))] * n, joined


def _step(point: Point, step: int, chunk: StepShape) -> StepShape:
    return StepShape(
        decodes=point.streams,
        decode_context_tokens=point.streams * (point.context_tokens + step),
        prefills=chunk.prefills,
        prefill_tokens=chunk.prefill_tokens,
        prefill_attended_tokens=chunk.prefill_attended_tokens,
        emits=point.streams + chunk.emits,
    )

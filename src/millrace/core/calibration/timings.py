"""Turns what a client saw of a point into steps and the seconds they took together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from millrace.core.calibration.points import Kind, Point
from millrace.core.cost import StepShape

_LEAST_STEPS = 4  # fewer, and the jitter of the first and last token would count too much
_SETTLED_TOKENS = 24


class Stream(Struct, frozen=True, kw_only=True):
    """One streamed answer: when it was asked for, and when each of its tokens came; at least one.

    `merged` tokens came in one event with the next; when they were made is a guess.
    """

    sent_s: float
    tokens_s: tuple[float, ...]
    merged: int = 0


def stream_of(sent_s: float, events_s: Sequence[float], tokens: int) -> Stream:
    """Return the stream whose events, at least one, held so many tokens.

    A server that falls behind sends several tokens in one event. As steps take about the same time, the
    longest gaps between events are taken to be the ones in which more than one token was made.
    """
    parts = [1] * (len(events_s) - 1)
    gaps_s = [after - before for before, after in pairwise(events_s)]
    merged = max(0, tokens - len(events_s)) if gaps_s else 0
    for _ in range(merged):
        longest = max(range(len(gaps_s)), key=lambda i: gaps_s[i] / parts[i])
        parts[longest] += 1
    times_s = [events_s[0]]
    for end_s, gap_s, count in zip(events_s[1:], gaps_s, parts, strict=True):
        times_s += [end_s - gap_s * left / count for left in reversed(range(count))]
    return Stream(sent_s=sent_s, tokens_s=tuple(times_s), merged=merged)


class Sample(Struct, frozen=True, kw_only=True):
    """Steps that followed one another, and the seconds they took together."""

    kind: Kind
    steps: tuple[StepShape, ...]
    seconds: float
    held_out: bool = False

    @property
    def step_s(self) -> float:
        """Seconds of a step on average."""
        return self.seconds / len(self.steps)


def answer_tokens(point: Point, step_tokens: int) -> int:
    """Tokens each stream of a point must produce: enough to outlast the prompts of the others."""
    prompts = point.streams * point.context_tokens + point.prompt_tokens
    return _SETTLED_TOKENS + 2 * (prompts // step_tokens)


def sample(
    point: Point,
    streams: Sequence[Stream],
    arrival: Stream | None,
    *,
    overhead_s: float,
    step_tokens: int,
) -> Sample | None:
    """Return what a point's answers say; None if the engine did not do what the point is about.

    That is so where not all streams ran at once for a while, because the engine had no room for them, or
    they ended before the prompt that was to join them was answered. `overhead_s` is what a request takes
    besides steps, `step_tokens` the most tokens of a step.
    """
    if not streams:
        assert arrival is not None
        steps, seconds = _prefill(point, arrival, overhead_s, step_tokens)
    elif arrival is None:
        steps, seconds = _decode(point, streams)
    else:
        steps, seconds = _mixed(point, streams, arrival, step_tokens)
    if not steps or seconds <= 0:
        return None
    return Sample(kind=point.kind, steps=tuple(steps), seconds=seconds, held_out=point.held_out)


def _prefill(
    point: Point, arrival: Stream, overhead_s: float, step_tokens: int
) -> tuple[list[StepShape], float]:
    return prefill_steps(point.prompt_tokens, 0, step_tokens), (
        arrival.tokens_s[0] - arrival.sent_s - overhead_s
    )


def _decode(point: Point, streams: Sequence[Stream]) -> tuple[list[StepShape], float]:
    """From when all streams run, a token of one of them, to the end of the one that ends first."""
    times_s = _clearest(streams).tokens_s
    begin = bisect_right(times_s, max(one.tokens_s[0] for one in streams))
    end = bisect_right(times_s, min(one.tokens_s[-1] for one in streams)) - 1
    if end - begin < _LEAST_STEPS:
        return [], 0.0
    return _decode_steps(point, streams, times_s[begin], end - begin), times_s[end] - times_s[begin]


def _mixed(
    point: Point, streams: Sequence[Stream], arrival: Stream, step_tokens: int
) -> tuple[list[StepShape], float]:
    """From the last token before the prompt left to the first one after its answer came.

    As many of the steps between as the prompt has chunks had a chunk of it, the others had none.
    """
    times_s = _clearest(streams).tokens_s
    begin, end = bisect_right(times_s, arrival.sent_s) - 1, bisect_right(times_s, arrival.tokens_s[0])
    chunks = prefill_steps(point.prompt_tokens, 0, max(1, step_tokens - point.streams))
    settled = begin >= 0 and all(one.tokens_s[0] <= times_s[begin] for one in streams)
    lasting = end < len(times_s) and all(one.tokens_s[-1] >= times_s[end] for one in streams)
    if not (settled and lasting) or end - begin < len(chunks):
        return [], 0.0
    steps = _decode_steps(point, streams, times_s[begin], end - begin)
    plain = len(steps) - len(chunks)
    joined = [_together(*both) for both in zip(steps[plain:], chunks, strict=True)]
    return [*steps[:plain], *joined], times_s[end] - times_s[begin]


def _clearest(streams: Sequence[Stream]) -> Stream:
    return min(streams, key=lambda one: one.merged)


def _decode_steps(point: Point, streams: Sequence[Stream], begin_s: float, count: int) -> list[StepShape]:
    """The steps after a moment; a sequence adds its newest token to the cache only in the step after."""
    made = sum(bisect_right(one.tokens_s, begin_s) for one in streams)
    n = point.streams
    context = n * (point.context_tokens - 1) + made
    return decode_steps(n, context, count)


def decode_steps(sequences: int, context_tokens: int, count: int) -> list[StepShape]:
    """Steps of the same sequences one after another, the first on `context_tokens` in the cache in all."""
    return [
        StepShape(decodes=sequences, decode_context_tokens=context_tokens + i * sequences, emits=sequences)
        for i in range(count)
    ]


def prefill_steps(prompt_tokens: int, cached_tokens: int, step_tokens: int) -> list[StepShape]:
    """The chunks of one prompt, each as long as a step allows; only the last one emits a token."""
    starts = range(cached_tokens, prompt_tokens, step_tokens)
    return [_chunk(kv, min(step_tokens, prompt_tokens - kv), prompt_tokens) for kv in starts]


def _chunk(kv: int, tokens: int, prompt_tokens: int) -> StepShape:
    return StepShape(
        prefills=1,
        prefill_tokens=tokens,
        prefill_attended_tokens=tokens * kv + tokens * (tokens + 1) // 2,
        emits=int(kv + tokens == prompt_tokens),
    )


def _together(decode: StepShape, chunk: StepShape) -> StepShape:
    return StepShape(
        decodes=decode.decodes,
        decode_context_tokens=decode.decode_context_tokens,
        prefills=chunk.prefills,
        prefill_tokens=chunk.prefill_tokens,
        prefill_attended_tokens=chunk.prefill_attended_tokens,
        emits=decode.emits + chunk.emits,
    )

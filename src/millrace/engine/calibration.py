"""Times an executor over a designed set of steps, to fit a cost model of this machine to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice, product

from msgspec import Struct

from millrace.core.cost import StepShape
from millrace.core.draw import draw
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import Generation, generation
from millrace.engine.kv import KvShape
from millrace.replica.executor import Chunk, Step

DECODES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CONTEXTS = (1, 100, 400, 900, 1800)
CHUNKS = (8, 16, 48, 96, 160, 256, 512)
STARTS = (0, 128, 640, 1400)


class Point(Struct, frozen=True):
    """One step: `decodes` sequences of `context` tokens each, and `chunk` prompt tokens on `start`."""

    decodes: int
    context: int
    chunk: int
    start: int


def points(shape: KvShape, *, sequences: int, step_tokens: int, context_tokens: int) -> list[Point]:
    """Decodes, prompts, and both together, within the limits and in an order without a pattern."""
    decodes = [
        (n, context)
        for n, context in product(DECODES, CONTEXTS)
        if n <= sequences and context < context_tokens
    ]
    chunks = [(chunk, start) for chunk, start in product(CHUNKS, STARTS) if chunk + start <= context_tokens]
    alone = [Point(*one, 0, 0) for one in decodes] + [Point(0, 0, *one) for one in chunks]
    mixed = [Point(*some, *one) for some, one in product(decodes[1::4], chunks[1::4])]
    fitting = [
        one
        for one in alone + mixed
        if one.decodes + one.chunk <= step_tokens and _blocks(one, shape.block_tokens) <= shape.blocks
    ]
    return sorted(fitting, key=lambda one: draw("calibration", one))


def _blocks(one: Point, block_tokens: int) -> int:
    """KV blocks that the point's sequences hold."""
    return one.decodes * -(-(one.context + 1) // block_tokens) + -(-(one.start + one.chunk) // block_tokens)


def measure(
    executor: TorchExecutor, budget_s: float, *, sequences: int = 32, step_tokens: int = 256
) -> list[tuple[StepShape, float]]:
    """Time every point again and again for about `budget_s` seconds, at least once after an untimed run.

    Returns each with the lower quartile of its seconds, because whatever interrupts a step makes it longer.
    The executor must be idle; what its KV cache holds is overwritten.
    """
    context_tokens = executor.model.rotations.shape[0]
    asked = points(
        executor.kv_shape, sequences=sequences, step_tokens=step_tokens, context_tokens=context_tokens
    )
    rehearsals = [_Rehearsal(executor, f"calibration-{i}", point) for i, point in enumerate(asked)]
    try:
        return _timed(rehearsals, budget_s)
    finally:
        for rehearsal in rehearsals:
            rehearsal.remove()


def _timed(rehearsals: Sequence[_Rehearsal], budget_s: float) -> list[tuple[StepShape, float]]:
    for rehearsal in rehearsals:
        rehearsal.run_s()
    timings: list[list[float]] = [[] for _ in rehearsals]
    deadline = time.monotonic() + budget_s
    while not timings[-1] or time.monotonic() < deadline:
        for rehearsal, seconds in zip(rehearsals, timings, strict=True):
            seconds.append(rehearsal.run_s())
    return [
        (one.step.shape, sorted(seconds)[len(seconds) // 4])
        for one, seconds in zip(rehearsals, timings, strict=True)
    ]


class _Rehearsal:
    """One step that can be run again and again, with sequences of its own."""

    def __init__(self, executor: TorchExecutor, name: str, point: Point) -> None:
        self._executor = executor
        self._blocks = iter(range(executor.kv_shape.blocks))
        self._generations: list[Generation] = []
        decodes = [self._chunk(f"{name}-{i}", point.context, 1) for i in range(point.decodes)]
        prefills = [self._chunk(f"{name}-prefill", point.start, point.chunk)] if point.chunk else []
        shape = StepShape(
            decodes=point.decodes,
            decode_context_tokens=point.decodes * point.context,
            prefills=len(prefills),
            prefill_tokens=point.chunk,
            prefill_attended_tokens=point.chunk * point.start + point.chunk * (point.chunk + 1) // 2,
            emits=len(decodes) + len(prefills),
        )
        self.step = Step((*decodes, *prefills), shape)

    def run_s(self) -> float:
        """Seconds the step takes; the tokens it adds are taken away again."""
        seconds = self._executor.run(self.step).seconds
        for one in self._generations:
            del one.tokens[one.sequence.prompt_tokens :]
            one.take()
        return seconds

    def remove(self) -> None:
        """Let the executor forget the sequences."""
        for one in self._generations:
            self._executor.remove(one.id)

    def _chunk(self, name: str, start: int, tokens: int) -> Chunk:
        size = self._executor.kv_shape.block_tokens
        silent = ByteDetokenizer(lambda token: b"")
        one = generation(name, [0] * (start + tokens), 1, detokenizer=silent, block_tokens=size)
        one.sequence.table += islice(self._blocks, -(-(start + tokens) // size))
        self._generations.append(one)
        self._executor.add(one)
        return Chunk(one.sequence, start, tokens, True)

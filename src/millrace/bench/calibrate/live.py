"""Measures the points of a calibration on a live engine, again and again until the budget is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from statistics import median
from uuid import uuid4

from msgspec import Struct

from millrace.bench.calibrate.client import Client
from millrace.core.calibration import Point, Sample, Stream, answer_tokens, points, sample
from millrace.core.draw import draw

_TRIPS = 20
_FIRST_TOKEN, _TOKENS = 256, 744  # ids that every vocabulary has and that mean nothing special
_LATTICE = 6364136223846793005  # Knuth's multiplier: a prompt needs no better chance than this


class Asked(Struct, frozen=True, kw_only=True):
    """What to measure: a model, its longest context, the most tokens of a step, and for about how long."""

    model: str
    context_tokens: int
    step_tokens: int
    budget_s: float


class Measured(Struct, frozen=True, kw_only=True):
    """Each point that could be measured, with the sample that is typical of it."""

    samples: list[Sample]
    missed: list[Point]
    rounds: int
    overhead_s: float


Progress = Callable[[int, int, int], None]
"""Called before each point with its number, how many there are, and the round; all from 1."""


async def measure(client: Client, asked: Asked, progress: Progress) -> Measured:
    """Measure every point once, then all of them again until the budget is spent.

    A point's sample is that with the median seconds per step. The engine must have nothing else to do.
    """
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + asked.budget_s
    design = points(asked.context_tokens)
    session = _Session(client, asked)
    await session.warm_up()
    overhead_s = median([await client.round_trip_s() for _ in range(_TRIPS)])
    found: dict[Point, list[Sample]] = {one: [] for one in design}
    rounds = 0
    while not rounds or clock() < deadline_s:
        rounds += 1
        for number, point in enumerate(design, 1):
            if rounds > 1 and clock() >= deadline_s:
                break
            progress(number, len(design), rounds)
            one = await session.take(point, overhead_s)
            if one is not None:
                found[point].append(one)
    return Measured(
        samples=_typical(found),
        missed=[point for point, samples in found.items() if not samples],
        rounds=rounds,
        overhead_s=overhead_s,
    )


def _typical(found: Mapping[Point, list[Sample]]) -> list[Sample]:
    ordered = [sorted(samples, key=lambda one: one.step_s) for samples in found.values() if samples]
    # Of two, the quicker: whatever interrupts a step makes it longer.
    return [samples[(len(samples) - 1) // 2] for samples in ordered]


class _Session:
    """Asks for points, with prompts that nobody ever asked before."""

    def __init__(self, client: Client, asked: Asked) -> None:
        self._client = client
        self._asked = asked
        self._name = uuid4().hex  # another calibration's prompts may be in the engine's prefix cache
        self._prompts = 0

    async def warm_up(self) -> None:
        """Let the engine compile, allocate and connect whatever it does the first time only."""
        for _ in range(3):
            await self._stream(16, 4)

    async def take(self, point: Point, overhead_s: float) -> Sample | None:
        """Measure a point once; None if it did not work out."""
        length = answer_tokens(point, self._asked.step_tokens)
        streams, arrival = await self._together(point, length)
        answers = [one for one in (*streams, arrival) if one is not None]
        if len(answers) < point.streams + bool(point.prompt_tokens):
            return None
        return sample(
            point,
            answers[: point.streams],
            arrival,
            overhead_s=overhead_s,
            step_tokens=self._asked.step_tokens,
        )

    async def _together(self, point: Point, length: int) -> tuple[list[Stream | None], Stream | None]:
        """Start the streams; once all of them run, send the prompt that joins them."""
        waiting = point.streams
        all_run = asyncio.Event()

        def settled() -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                all_run.set()

        try:
            async with asyncio.TaskGroup() as tasks:
                streams = [
                    tasks.create_task(self._stream(point.context_tokens, length, settled))
                    for _ in range(point.streams)
                ]
                arrival = None
                if point.prompt_tokens:
                    if streams:
                        await all_run.wait()
                    arrival = await self._stream(point.prompt_tokens, 1)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first stream that failed ended the others
        return [task.result() for task in streams], arrival

    async def _stream(
        self, prompt_tokens: int, max_tokens: int, settled: Callable[[], None] | None = None
    ) -> Stream | None:
        self._prompts += 1
        prompt = _prompt(draw(self._name, self._prompts), prompt_tokens)
        return await self._client.stream(self._asked.model, prompt, max_tokens, settled=settled)


def _prompt(state: int, tokens: int) -> list[int]:
    """Token ids that follow from a number, different from the first on for different numbers."""
    found = []
    for _ in range(tokens):
        state = (state * _LATTICE + 1) % 2**64
        found.append(_FIRST_TOKEN + (state >> 33) % _TOKENS)
    return found

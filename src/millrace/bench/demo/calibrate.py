"""What a step of an engine costs on this machine, fitted to the log of a running one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median

import msgspec

from millrace.core.cost import Linear, StepShape, fit
from millrace.core.outcome import Outcome

PAUSE_S = 0.002  # a longer silence between two steps means that the engine had nothing to do


class Logged(StepShape, frozen=True, kw_only=True):
    """One line of an engine's step log: the step's shape, its own seconds, and when it ended."""

    seconds: float
    ended_s: float


def read_steps(path: Path) -> list[Logged]:
    """Read a step log."""
    decoder = msgspec.json.Decoder(Logged)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def samples(steps: Iterable[Logged]) -> Iterator[tuple[StepShape, float]]:
    """Yield each step's shape with the time from the end of the step before it to its own end.

    That is what a client waits for: the computation and everything the engine does around it. After a
    pause the step's own seconds are all there is.
    """
    before_s: float | None = None
    for step in steps:
        began_s = step.ended_s - step.seconds
        idle = before_s is None or began_s - before_s > PAUSE_S
        yield step, step.seconds if idle or before_s is None else step.ended_s - before_s
        before_s = step.ended_s


def fitted(steps: list[Logged]) -> Linear:
    """Fit the linear cost model to the log of an engine that works alone."""
    return fit(samples(steps))


def slowdowns(logs: Sequence[list[Logged]], cost: Linear) -> tuple[float, ...]:
    """Return by how much steps take longer while 1, 2, ... of the engines with these logs are busy.

    Steps are sorted by the number of engines that were busy while they lasted, on average; what they took
    is held against their prices alone. Numbers that never occurred are as slow as the next lower one.
    """
    took_s, price_s = [0.0] * len(logs), [0.0] * len(logs)
    busy = [_Busy(steps) for steps in logs]
    for steps in logs:
        for step, (shape, seconds) in zip(steps, samples(steps), strict=True):
            began_s = step.ended_s - step.seconds
            together = sum(one.between_s(began_s, step.ended_s) for one in busy) / step.seconds
            k = min(max(round(together), 1), len(logs)) - 1
            took_s[k] += seconds
            price_s[k] += cost.step_s(shape)
    found = [took / price if price else 0.0 for took, price in zip(took_s, price_s, strict=True)]
    return tuple(accumulate(found, max))


class _Busy:
    """When an engine computed, for asking how long it did between two moments."""

    def __init__(self, steps: list[Logged]) -> None:
        self._ends_s = [step.ended_s for step in steps]
        self._starts_s = [step.ended_s - step.seconds for step in steps]
        self._until_s = [0.0, *accumulate(step.seconds for step in steps)]

    def between_s(self, from_s: float, to_s: float) -> float:
        return self._by_s(to_s) - self._by_s(from_s)

    def _by_s(self, moment_s: float) -> float:
        ended = bisect_right(self._ends_s, moment_s)
        under_way_s = moment_s - self._starts_s[ended] if ended < len(self._starts_s) else 0.0
        return self._until_s[ended] + max(0.0, under_way_s)


def overhead_s(outcomes: list[Outcome], cost: Linear) -> float:
    """Return the median time to first token that no step explains: gateway, sockets, client."""
    waits = [_unexplained_s(one, cost) for one in outcomes if one.ttft_s is not None]
    return max(0.0, median(waits)) if waits else 0.0


def _unexplained_s(one: Outcome, cost: Linear) -> float:
    assert one.ttft_s is not None
    tokens = one.prompt_tokens - one.cached_tokens
    pairs = tokens * one.cached_tokens + tokens * (tokens + 1) // 2
    step = StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=pairs, emits=1)
    return one.ttft_s - cost.step_s(step)

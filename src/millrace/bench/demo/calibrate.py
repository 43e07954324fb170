"""What a step of an engine costs on this machine, fitted to the log of a running one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """Fit the linear cost model to a step log."""
    return fit(samples(steps))


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

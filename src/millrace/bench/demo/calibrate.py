"""What a step of an engine costs on this machine, fitted to the step logs of a fleet that rehearses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

import msgspec

from millrace.core.calibration import Timed
from millrace.core.cost import StepShape
from millrace.core.outcome import Outcome

PAUSE_S = 0.002  # a longer silence between two steps means that the engine had nothing to do


class Logged(StepShape, frozen=True, kw_only=True):
    """One line of an engine's step log: the step's shape, its own seconds, and when it ended."""

    seconds: float
    ended_s: float

    @property
    def began_s(self) -> float:
        """When it began, on the clock of `ended_s`."""
        return self.ended_s - self.seconds


def read_steps(path: Path) -> list[Logged]:
    """Read a step log."""
    decoder = msgspec.json.Decoder(Logged)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def timed(logs: Sequence[list[Logged]]) -> list[Timed]:
    """Return all steps of engines that worked at the same time, each with how many were busy as it began."""
    busy = [_Busy(steps) for steps in logs]
    found = []
    for own, steps in enumerate(logs):
        others = [one for i, one in enumerate(busy) if i != own]
        for step, (shape, seconds) in zip(steps, samples(steps), strict=True):
            company = sum(one.at(step.ended_s - seconds) for one in others)
            found.append(Timed(shape=shape, seconds=seconds, busy=1 + company))
    return found


def samples(steps: Iterable[Logged]) -> Iterator[tuple[StepShape, float]]:
    """Yield each step's shape with the time from the end of the step before it to its own end.

    That is what a client waits for: the computation and everything the engine does around it. Where the
    engine had nothing to do in between, the step's own seconds are all there is.
    """
    before: Logged | None = None
    for step in steps:
        yield step, step.seconds if before is None or _paused(before, step) else step.ended_s - before.ended_s
        before = step


def _paused(before: Logged, step: Logged) -> bool:
    """Whether there was a silence that no sequence waited through."""
    unfinished = step.decodes > 0 or before.emits < before.decodes + before.prefills
    return not unfinished and step.began_s - before.ended_s > PAUSE_S


class _Busy:
    """When an engine computed."""

    def __init__(self, steps: list[Logged]) -> None:
        self._began_s = [step.began_s for step in steps]
        self._ended_s = [step.ended_s for step in steps]

    def at(self, moment_s: float) -> bool:
        """Whether a step was under way, or was about to begin as one had just ended."""
        following = bisect_right(self._ended_s, moment_s)
        if following == len(self._ended_s):
            return False
        idle_s = self._began_s[following] - (self._ended_s[following - 1] if following else -PAUSE_S)
        return self._began_s[following] <= moment_s or idle_s <= PAUSE_S


def overhead_s(live: Sequence[Outcome], simulated: Iterable[Outcome]) -> float:
    """Return by how much first tokens took longer than a simulation without gateway, sockets and client.

    It is the median of the requests that had their engine to themselves: what others wait for is queues.
    """
    expected = {one.id: one.ttft_s for one in simulated}
    late = [
        one.ttft_s - ttft_s
        for one in live
        if one.ttft_s and (ttft_s := expected[one.id]) is not None and _undisturbed(one, live)
    ]
    return max(0.0, median(late)) if late else 0.0


def _undisturbed(one: Outcome, live: Iterable[Outcome]) -> bool:
    assert one.first_token_s is not None
    return not any(
        other.replica == one.replica
        and other is not one
        and other.scheduled_s < one.first_token_s
        and (other.finished_s or other.scheduled_s) > one.scheduled_s
        for other in live
    )

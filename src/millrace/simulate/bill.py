"""What a fleet costs while it is there: dollars for its hours, joules for its steps and for waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import ENDLESS, StepShape
from millrace.core.cost.energy import run_j
from millrace.replica.progress import Progress
from millrace.simulate.engine import Engine, ServerSpec
from millrace.simulate.lockstep import Lockstep
from millrace.simulate.presence import Presence
from millrace.simulate.server import Server

HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Bill:
    """Joules and dollars of a whole fleet; None where one of its replicas' is not known."""

    energy_j: float | None
    cost_usd: float | None


class Meter:
    """Adds up what steps draw. What a failure cuts off counts as waiting."""

    def __init__(self, idle_w: float | None) -> None:
        self.idle_w = idle_w
        self.drawn_j = 0.0
        self.active_s = 0.0

    def add(self, drawn_j: float, active_s: float) -> None:
        """Note what steps drew, and how long they would take if no other engine slowed them down."""
        self.drawn_j += drawn_j
        self.active_s += active_s

    def energy_j(self, there_s: float) -> float | None:
        """Return the joules of all steps, and of waiting for the rest of the time it is there."""
        if self.idle_w is None or isnan(self.drawn_j):
            return None
        return self.drawn_j + self.idle_w * max(0.0, there_s - self.active_s)


class MeteredServer(Server):
    """A server whose meter runs."""

    def __init__(
        self, spec: ServerSpec, batching: BatchingPolicy, *, leaping: bool = True, longest: int = ENDLESS
    ) -> None:
        super().__init__(spec, batching, leaping=leaping, longest=longest)
        self.meter = Meter(spec.idle_w)
        self._slowdown = 1.0

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run, which will end at `end_s`; False if there is nothing to do."""
        self._slowdown = slowdown
        return super().start(now_s, slowdown)

    def finish(self) -> Progress:
        """End the run under way, and add what it drew: its price does not grow with who else is busy."""
        shape, count, seconds = self.under_way()
        drawn_j = run_j(self.cost, shape, count)
        if closing := self.closing:
            drawn_j += self.cost.step_j(closing.shape)
        self.meter.add(drawn_j, seconds / self._slowdown)
        return super().finish()


class MeteredLockstep(Lockstep):
    """Ranks whose meter runs: each draws for its own part, for its share of the experts, and for waiting."""

    def __init__(self, spec: ServerSpec, batching: BatchingPolicy) -> None:
        super().__init__(spec, batching)
        self.meter = Meter(spec.idle_w)
        self._seconds = 0.0

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next step, which will end at `end_s`; False if there is nothing to do."""
        began = super().start(now_s, slowdown)
        self._seconds = (self.end_s - now_s) / slowdown
        return began

    def finish(self) -> Progress:
        """End the step under way, and add what all ranks drew, those without a batch of their own too."""
        tokens = sum(rank.tokens for rank in self.ranks)
        shapes = (rank.under_way()[0] if rank.busy else StepShape() for rank in self.ranks)
        drawn_j = sum(self.cost.rank_j(shape, tokens, self._seconds) for shape in shapes)
        self.meter.add(drawn_j, self._seconds)
        return super().finish()


def bill(engines: Sequence[Engine], presence: Presence, end_s: float) -> Bill:
    """Add up what these engines cost until `end_s`; joules are known only of metered ones."""
    there_s = {engine.id: presence.seconds(engine.id, end_s) for engine in engines}
    return Bill(
        energy_j=_sum(
            engine.meter.energy_j(there_s[engine.id])
            if isinstance(engine, MeteredServer | MeteredLockstep)
            else None
            for engine in engines
        ),
        cost_usd=_sum(
            None if (price := engine.spec.price_per_h) is None else price * there_s[engine.id] / HOUR_S
            for engine in engines
        ),
    )


def _sum(parts: Iterable[float | None]) -> float | None:
    """Add up; what lacks a part is not known."""
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total

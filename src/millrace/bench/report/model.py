"""What a report is made of: policies, each measured live, simulated, or both, and their origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, Literal

from msgspec import Struct

from millrace.core.outcome import Measured, Outcome
from millrace.core.request import Slo
from millrace.core.stats import Summary
from millrace.simulate.occupancy import Occupancy

World = Literal["live", "simulated"]
WORLDS: tuple[World, ...] = ("live", "simulated")


class Run(Struct, frozen=True, kw_only=True):
    """One policy in one world, with the time between two tokens of an answer (live: two pieces of one).

    `client_lag_s` is what only the client of a live run can measure, `occupancy` what only a simulation
    that was watched can tell.
    """

    measured: Measured
    outcomes: list[Outcome]
    client_lag_s: Summary | None = None
    token_gap_s: Summary | None = None
    occupancy: Occupancy | None = None


class Repeat(Struct, frozen=True, kw_only=True):
    """The same requests once more, live, and as they were predicted for that time."""

    live: Run
    simulated: Run


class PolicyRuns(Struct, frozen=True, kw_only=True):
    """A policy by the name it was asked for, in the worlds it ran in: at least one.

    With `repeats`, the two runs are those of one of them: charts show it, numbers are medians over all.
    """

    name: str
    live: Run | None = None
    simulated: Run | None = None
    repeats: tuple[Repeat, ...] = ()

    def __post_init__(self) -> None:
        if self.live is None and self.simulated is None:
            raise ValueError(f"policy {self.name!r} has neither a live nor a simulated run; give one")

    @property
    def main(self) -> Run:
        """The live run if there is one, else the simulated one."""
        run = self.live or self.simulated
        assert run is not None
        return run

    @property
    def main_world(self) -> World:
        """The world of the main run."""
        return "live" if self.live else "simulated"

    def worlds(self) -> Iterator[tuple[World, Run]]:
        """Yield the runs there are, live first."""
        if self.live:
            yield "live", self.live
        if self.simulated:
            yield "simulated", self.simulated

    def all_of(self, world: World) -> list[Run]:
        """Return the runs of a world, one for each repeat."""
        if self.repeats:
            return [repeat.live if world == "live" else repeat.simulated for repeat in self.repeats]
        return [run for name, run in self.worlds() if name == world]


def repeated(name: str, repeats: Sequence[Repeat]) -> PolicyRuns:
    """Return a policy's repeats, at least one; the middle one by its live median is that of the charts."""
    known = sorted(repeats, key=lambda one: _median_s(one.live))
    middle = known[(len(known) - 1) // 2]
    more = tuple(repeats) if len(repeats) > 1 else ()
    return PolicyRuns(name=name, live=middle.live, simulated=middle.simulated, repeats=more)


def _median_s(run: Run) -> float:
    return run.measured.e2e_s.p50 if run.measured.e2e_s else inf


class Origin(Struct, frozen=True, kw_only=True):
    """Where a report comes from: the command that makes it again, when (ISO 8601) and on what."""

    command: str
    created: str
    versions: dict[str, str]
    host: dict[str, str]


class RunReport(Struct, frozen=True, kw_only=True):
    """Everything that `write` puts into files. `config` is echoed as it is: settings of the run by name."""

    title: str
    slo: Slo
    seed: int
    config: dict[str, Any]
    origin: Origin
    policies: list[PolicyRuns]

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("policies is empty; a report needs at least one run")

    def runs(self) -> Iterator[tuple[PolicyRuns, World, Run]]:
        """Yield one run per policy and world, with them."""
        for policy in self.policies:
            for world, run in policy.worlds():
                yield policy, world, run

    def every(self) -> Iterator[tuple[PolicyRuns, World, int, Run]]:
        """Yield every run with its policy, its world and the number of its repeat, from 1."""
        for policy in self.policies:
            for world in WORLDS:
                for number, run in enumerate(policy.all_of(world), 1):
                    yield policy, world, number, run

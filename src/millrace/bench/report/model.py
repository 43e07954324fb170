"""What a report is made of: policies, each measured live, simulated, or both, and their origin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from millrace.core.outcome import Measured, Outcome
from millrace.core.request import Slo
from millrace.core.stats import Summary

World = Literal["live", "simulated"]


class Run(Struct, frozen=True, kw_only=True):
    """One policy in one world; the last two are what only the client of a live run can measure."""

    measured: Measured
    outcomes: list[Outcome]
    client_lag_s: Summary | None = None
    token_gap_s: Summary | None = None


class PolicyRuns(Struct, frozen=True, kw_only=True):
    """A policy by the name it was asked for, in the worlds it ran in: at least one."""

    name: str
    live: Run | None = None
    simulated: Run | None = None

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
        """Yield every run with its policy and world."""
        for policy in self.policies:
            for world, run in policy.worlds():
                yield policy, world, run

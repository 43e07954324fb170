"""One run of a scenario, small enough to send to another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from msgspec import Struct

from millrace.cli.serving import in_options
from millrace.cli.simulating.scenario import Scenario
from millrace.core.outcome import Outcome
from millrace.simulate import ServerSpec, Simulation, simulate
from millrace.simulate.lanes import ChromeTrace


class Task(Struct, frozen=True, kw_only=True):
    """One run of a scenario: under which policy, with which arrivals, at which prices, with what written.

    `batching` is one of those that are compared, or None for the scenario's only one.
    `log` is a file for events, `lanes` one for runs of steps; with `watched`, how full the fleet was is told.
    """

    scenario: Scenario
    policy: str
    batching: str | None = None
    seed: int = 0
    step_scale: float = 1.0
    log: Path | None = None
    lanes: Path | None = None
    watched: bool = False

    @property
    def label(self) -> str:
        """What the run is called beside others: its policy, or both of them."""
        return self.policy if self.batching is None else f"{self.policy}+{self.batching}"


def carry_out(task: Task, progress: Callable[[Outcome], None] | None = None) -> Simulation:
    """Simulate one task, in whatever process this is."""
    scenario = task.scenario
    fleet = scenario.servers(task.step_scale)
    with in_options(), ExitStack() as files:
        lanes = _lanes(files, task.lanes, task.label, fleet)
        return simulate(
            scenario.workload(seed=task.seed),
            fleet,
            scenario.controller(task.policy),
            scenario.batching_policy(task.batching),
            slo=scenario.objectives,
            surroundings=scenario.surroundings,
            log=files.enter_context(task.log.open("wb")).write if task.log else None,
            progress=progress,
            runs=lanes.tell if lanes else None,
            metered=scenario.energy,
            itl=scenario.itl,
            occupancy=task.watched,
        )


def _lanes(
    files: ExitStack, path: Path | None, title: str, fleet: Sequence[ServerSpec]
) -> ChromeTrace | None:
    if path is None:
        return None
    write = files.enter_context(path.open("wb")).write
    return files.enter_context(closing(ChromeTrace(write, title, [server.id for server in fleet])))

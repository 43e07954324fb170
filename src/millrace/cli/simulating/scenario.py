"""What is simulated, as it was typed: small enough to send to another process, which builds it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from msgspec import Struct

from millrace.cli.options import slo_of
from millrace.control import Controller, ControlSettings
from millrace.core.batch import BatchingPolicy
from millrace.core.cost import CostModel, Linear, Roofline
from millrace.core.cost.scaled import Scaled
from millrace.core.fleet_spec import FleetGroup, parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.core.trace.reshape import first, scale_lengths, scale_rate
from millrace.data import calibrations, open_calibration, open_trace
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, jobs_of, servers, simulate
from millrace.simulate.lanes import ChromeTrace
from millrace.simulate.repeat import redraw_arrivals


class Scenario(Struct, frozen=True, kw_only=True, dict=True):
    """Trace, fleet and settings, all but the routing policy; each is read when it is first asked for."""

    trace: str
    fleet: str
    queueing: str = "fcfs"
    batching: str = "split_fuse"
    calibration: str | None = None
    slo: str = ""
    requests: int | None = None
    rate: float = 1.0
    input_scale: float = 1.0
    output_scale: float = 1.0
    max_hold_s: float = 30.0

    def __reduce__(self) -> tuple[Callable[..., Scenario], tuple[Any, ...]]:
        """Leave behind what was read."""
        return _again, tuple(getattr(self, name) for name in self.__struct_fields__)

    @cached_property
    def groups(self) -> tuple[FleetGroup, ...]:
        """The fleet's groups."""
        return tuple(parse_fleet(self.fleet))

    @cached_property
    def objectives(self) -> Slo:
        """The objectives of requests that have none of their own."""
        return slo_of(self.slo)

    @cached_property
    def records(self) -> list[TraceRecord]:
        """The reshaped trace, by time."""
        records = scale_rate(open_trace(self.trace), self.rate)
        records = scale_lengths(records, input_factor=self.input_scale, output_factor=self.output_scale)
        kept = records if self.requests is None else first(records, self.requests)
        return sorted(kept, key=attrgetter("t_s"))

    def jobs(self, *, seed: int = 0, speed: float = 1.0) -> list[Job]:
        """Return the requests, with arrivals of this seed, `speed` times as fast."""
        records = scale_rate(redraw_arrivals(self.records, seed), speed)
        return list(jobs_of(records, self.groups[0].model.name, self.objectives))

    def servers(self, step_scale: float = 1.0) -> list[ServerSpec]:
        """Return the fleet, each step priced at `step_scale` times the cost model's price."""

        def cost(group: FleetGroup) -> CostModel:
            exact = self.cost(group)
            return exact if step_scale == 1 else Scaled(exact, step_scale)

        return servers(self.groups, cost)

    def cost(self, group: FleetGroup) -> Linear | Roofline:
        """The calibration asked for, or one that ships for this model on this device, or the data sheet."""
        shipped = f"{group.model.name}-{group.device.name}"
        if self.calibration is not None or shipped in calibrations():
            return open_calibration(self.calibration or shipped)
        return group.roofline

    def expected_errors(self) -> dict[str, str]:
        """Say how far off the prices of each model on each device are known to be."""
        return {
            f"{group.model.name} on {group.device.name}": self.cost(group).expected_error
            for group in self.groups
        }

    def controller(self, routing: str) -> Controller:
        """Return a fresh controller."""
        settings = ControlSettings(max_hold_s=self.max_hold_s)
        return Controller(load("routing", routing), load("queueing", self.queueing), settings)

    def batching_policy(self) -> BatchingPolicy:
        """Return a fresh batching policy."""
        policy: BatchingPolicy = load("batching", self.batching)
        return policy


class Task(Struct, frozen=True, kw_only=True):
    """One run of a scenario: under which policy, with which arrivals, at which prices, with what written.

    `log` is a file for events, `lanes` one for runs of steps.
    """

    scenario: Scenario
    policy: str
    seed: int = 0
    step_scale: float = 1.0
    log: Path | None = None
    lanes: Path | None = None


def carry_out(task: Task, progress: Callable[[Outcome], None] | None = None) -> Simulation:
    """Simulate one task, in whatever process this is."""
    scenario = task.scenario
    fleet = scenario.servers(task.step_scale)
    with ExitStack() as files:
        lanes = _lanes(files, task.lanes, task.policy, fleet)
        return simulate(
            scenario.jobs(seed=task.seed),
            fleet,
            scenario.controller(task.policy),
            scenario.batching_policy(),
            slo=scenario.objectives,
            log=files.enter_context(task.log.open("wb")).write if task.log else None,
            progress=progress,
            runs=lanes.tell if lanes else None,
        )


def _lanes(
    files: ExitStack, path: Path | None, title: str, fleet: Sequence[ServerSpec]
) -> ChromeTrace | None:
    if path is None:
        return None
    write = files.enter_context(path.open("wb")).write
    return files.enter_context(closing(ChromeTrace(write, title, [server.id for server in fleet])))


def _again(*fields: Any) -> Scenario:
    return Scenario(**dict(zip(Scenario.__struct_fields__, fields, strict=True)))

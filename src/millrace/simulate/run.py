"""One policy, one workload, one answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from millrace.control import Controller
from millrace.control.log import entry, header
from millrace.core.batch import BatchingPolicy
from millrace.core.event import Action, Event
from millrace.core.outcome import Measured, Outcome, measure
from millrace.core.request import Slo
from millrace.simulate.job import Job
from millrace.simulate.lanes import Observed, Watch
from millrace.simulate.lockstep import Lockstep
from millrace.simulate.server import Engine, Server, ServerSpec
from millrace.simulate.sessions import Sessions
from millrace.simulate.world import Surroundings, Watcher, World


class Simulation(Struct, frozen=True, kw_only=True):
    """How a policy did: every outcome in order of ending, the summary, virtual and real seconds."""

    outcomes: list[Outcome]
    measured: Measured
    simulated_s: float
    wall_s: float


def simulate(
    jobs: Iterable[Job] | Sessions,
    fleet: Sequence[ServerSpec],
    controller: Controller,
    batching: BatchingPolicy,
    *,
    slo: Slo | None = None,
    surroundings: Surroundings | None = None,
    log: Callable[[bytes], object] | None = None,
    progress: Callable[[Outcome], None] | None = None,
    runs: Watch | None = None,
    leaping: bool = True,
) -> Simulation:
    """Run the jobs, or the conversations, through a fleet in virtual time.

    `controller` must be fresh. `log` is given each line of the event log, `progress` each outcome,
    `runs` each run of steps of an engine.
    The same arguments give the same outcomes and the same log, byte for byte. With `leaping` off, every
    iteration is stepped through: slower by far, and the oracle that the leaps are held to.
    """
    began_s = time.perf_counter()
    outcomes: list[Outcome] = []

    def finish(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if progress:
            progress(outcome)

    # Engines that share a machine change each other's pace at every step, so no two steps are alike.
    shared = surroundings is not None and bool(surroundings.slowdowns)
    engines = [_engine(spec, batching, leaping=leaping and not shared) for spec in fleet]
    world = World(
        controller,
        [Observed(engine, runs) for engine in engines] if runs else engines,
        finish=finish,
        watch=_writer(controller, log) if log else None,
        surroundings=surroundings,
        follow=jobs.after if isinstance(jobs, Sessions) else None,
    )
    world.run(jobs)
    wall_s = time.perf_counter() - began_s
    measured = measure(outcomes, slo or Slo())
    return Simulation(outcomes=outcomes, measured=measured, simulated_s=world.ended_s, wall_s=wall_s)


def _engine(spec: ServerSpec, batching: BatchingPolicy, *, leaping: bool) -> Engine:
    return Lockstep(spec, batching) if spec.ranks > 1 else Server(spec, batching, leaping=leaping)


def _writer(controller: Controller, log: Callable[[bytes], object]) -> Watcher:
    log(header(controller, world="simulated"))

    def watch(event: Event, actions: list[Action]) -> None:
        log(entry(event, actions))

    return watch

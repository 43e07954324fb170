"""The simulated half of the demo: the same requests, policy and replicas, with every step priced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from msgspec import Struct

from millrace.bench.demo import calibrate
from millrace.bench.demo.live import event_log, replica_id
from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.demo.workload import jobs
from millrace.bench.prompts import Planned
from millrace.bench.report import Run
from millrace.control import Controller, ControlSettings
from millrace.core.calibration import Scattered, Shared, Timed, fit_shared
from millrace.core.cost import Linear, StepShape
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.speeds import attended_s, context_s
from millrace.policies import load
from millrace.simulate import ServerSpec, Simulation, simulate
from millrace.simulate.surroundings import Surroundings

LIKE_SERVE = ControlSettings(prefix_knowledge="answers")


class Rehearsal(Struct, frozen=True, kw_only=True):
    """What came of requests that have nothing to do with the slice: answers, and every engine's steps."""

    planned: list[Planned]
    outcomes: list[Outcome]
    steps: list[Timed]


class Calibration(Struct, frozen=True, kw_only=True):
    """What rehearsals tell of this machine: the price of a step, by how much engines that work at the same
    time slow each other down, how far single steps are off, and what lies between client and engine."""

    prices: Shared
    off_by: list[tuple[StepShape, float]]
    overhead_s: float = 0.0


def replica_spec(cost: Linear, limits: Limits) -> ReplicaSpec:
    """Describe a demo engine to the policies, with speeds predicted from the fitted cost model."""
    tokens = limits.step_tokens
    full = StepShape(
        prefills=1, prefill_tokens=tokens, prefill_attended_tokens=tokens * (tokens + 1) // 2, emits=1
    )
    one = StepShape(decodes=1, decode_context_tokens=tokens, emits=1)
    return ReplicaSpec(
        models=(MODEL,),
        device="cpu",
        limits=limits,
        prefill_tokens_per_s=tokens / cost.step_s(full),
        decode_step_s=cost.step_s(one),
        attended_s=attended_s(cost, limits),
        context_s=context_s(cost, limits),
    )


def calibrated(settings: DemoSettings, routing: str, rehearsals: Sequence[Rehearsal]) -> Calibration:
    """Fit prices to the steps of all rehearsals; what these do not explain of the answers is overhead.

    `routing` is that of the rehearsals.
    """
    steps = list(chain.from_iterable(one.steps for one in rehearsals))
    prices = fit_shared(steps, engines=settings.engines)
    found = Calibration(prices=prices, off_by=[(one.shape, prices.off_by(one)) for one in steps])
    spec = replica_spec(prices.cost, settings.limits)
    late_s = [
        calibrate.overhead_s(one.outcomes, _simulated(settings, routing, one.planned, found, spec).outcomes)
        for one in rehearsals
    ]
    return Calibration(prices=prices, off_by=found.off_by, overhead_s=sum(late_s) / len(late_s))


def predict(
    settings: DemoSettings,
    routing: str,
    planned: Sequence[Planned],
    measured: Calibration,
    *,
    spec: ReplicaSpec,
    repeat: int = 1,
) -> Run:
    """Simulate the plan under one policy on this machine's engines, and write the event log."""
    with event_log(settings.out, routing, "simulated", repeat).open("wb") as log:
        found = _simulated(settings, routing, planned, measured, spec, log=log.write)
    in_order = sorted(found.outcomes, key=lambda outcome: outcome.scheduled_s)
    return Run(measured=found.measured, outcomes=in_order, token_gap_s=found.itl_s)


def _simulated(
    settings: DemoSettings,
    routing: str,
    planned: Sequence[Planned],
    measured: Calibration,
    spec: ReplicaSpec,
    *,
    log: Callable[[bytes], object] | None = None,
) -> Simulation:
    names = [replica_id(n) for n in range(settings.engines)]
    costs = [Scattered(measured.prices.cost, measured.off_by, seed=name) for name in names]
    way_s = measured.overhead_s / 2
    return simulate(
        jobs(planned),
        [ServerSpec(id=name, spec=spec, cost=cost) for name, cost in zip(names, costs, strict=True)],
        Controller(load("routing", routing), load("queueing", "fcfs"), LIKE_SERVE),
        load("batching", "split_fuse"),
        slo=settings.slo,
        surroundings=Surroundings(
            to_engine_s=way_s, from_engine_s=way_s, slowdowns=measured.prices.slowdowns
        ),
        log=log,
        itl=True,
    )

"""The simulated half of the demo: the same requests, policy and replicas, with every step priced."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from millrace.bench.demo.live import event_log, replica_id
from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.demo.workload import jobs
from millrace.bench.prompts import Planned
from millrace.bench.report import Run
from millrace.control import Controller
from millrace.core.cost import Linear, StepShape
from millrace.core.replica import Limits, ReplicaSpec
from millrace.policies import load
from millrace.simulate import ServerSpec, simulate
from millrace.simulate.world import Surroundings


class Calibration(Struct, frozen=True, kw_only=True):
    """What was measured of this machine: the price of a step, by how much engines that work at the same
    time slow each other down, and what lies between client and engine."""

    cost: Linear
    slowdowns: tuple[float, ...]
    overhead_s: float


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
    )


def predict(settings: DemoSettings, routing: str, planned: Sequence[Planned], measured: Calibration) -> Run:
    """Simulate the plan under one policy on this machine's engines, and write the event log."""
    spec = replica_spec(measured.cost, settings.limits)
    servers = [ServerSpec(id=replica_id(n), spec=spec, cost=measured.cost) for n in range(settings.engines)]
    way_s = measured.overhead_s / 2
    surroundings = Surroundings(to_engine_s=way_s, from_engine_s=way_s, slowdowns=measured.slowdowns)
    controller = Controller(load("routing", routing), load("queueing", "fcfs"))
    with event_log(settings.out, routing, "simulated").open("wb") as log:
        found = simulate(
            jobs(planned),
            servers,
            controller,
            load("batching", "split_fuse"),
            slo=settings.slo,
            surroundings=surroundings,
            log=log.write,
        )
    in_order = sorted(found.outcomes, key=lambda outcome: outcome.scheduled_s)
    return Run(measured=found.measured, outcomes=in_order)

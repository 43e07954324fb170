"""Simulating every parallel plan finds ones up to 3.37x as fast as the usual one, or with 45 % less energy.

Llama-3-70B on two machines of eight H100: every plan of tensor, pipeline and data parallelism that fits is
simulated through this project's own policies, with batches that change every step. "Fast" is the time until
all of 400 requests are answered that come at once, for three workloads made of the Azure trace: as it is,
prompts 4x and answers 1/4, prompts 1/4 and answers 4x. The usual plan is tensor parallelism within a machine
and a pipeline across them. The gain depends on the workload: the threshold is 1.2x for one of three. Energy
is joules per answered token while the trace comes at its own pace, for all plans without a pipeline on all or
fewer devices, unused ones being switched off; saved is what the most frugal plan needs less than the one with
the lowest latency, among plans at most 1.5x as slow as that. With all devices on there is nothing to choose:
the fastest plan is all but the most frugal. Steps are priced by the roofline, whose error is printed by
`millrace simulate`; pipelines are taken to have no bubbles, links between machines to be 400 Gb/s and 10 us.

Source: Lin et al., APEX: An Extensible and Dynamism-Aware Simulator for Automated Parallel Execution in LLM
Serving, arXiv:2411.17651.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.control import Controller, ControlSettings
from millrace.core.catalogue import device, model
from millrace.core.cost import CostModel, Roofline, StepShape
from millrace.core.parallel import Cluster, Plan, Staged, plans
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord, scale_lengths, scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import ServerSpec, Simulation, simulate
from millrace.simulate.job import jobs_of

KIND: Kind = "simulated"
MODEL = model("llama-3-70b")
CLUSTER = Cluster(device=device("h100"), machines=2, devices_each=8, link_bytes_per_s=50e9, start_s=10e-6)
LIMITS = Limits(step_tokens=2048, sequences=256)
USUAL = Plan(tensor=8, pipeline=2, data=1)
WORKLOADS = ((1.0, 1.0), (4.0, 0.25), (0.25, 4.0))
REQUESTS = 400
PACED_REQUESTS = 200
AT_ONCE = 1e4  # times as fast as the trace came
SLOWER = 1.5


class Option(NamedTuple):
    """A plan with the limits of each of its batches."""

    plan: Plan
    limits: Limits


class Meter:
    """Prices steps and adds up what they take; every step must be priced by itself."""

    needs_lengths = False

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self.busy_s = self.joules = 0.0

    def step_s(self, shape: StepShape) -> float:
        """Seconds of the step, which is counted."""
        seconds = self._cost.step_s(shape)
        self.busy_s += seconds
        self.joules += self._cost.step_j(shape)
        return seconds

    def step_j(self, shape: StepShape) -> float:
        """Joules of the step, which is not counted."""
        return self._cost.step_j(shape)


def measure() -> list[Check]:
    """Simulate every plan for three workloads, then plans on fewer devices at the trace's own pace."""
    options = [Option(*found) for found in plans(MODEL, CLUSTER, LIMITS)]
    began_s = time.process_time()
    gains = [_gain(options, workload) for workload in WORKLOADS]
    search_s = (time.process_time() - began_s) / len(WORKLOADS)
    return [
        Check(what="plans that fit", value=len(options), at_least=2),
        Check(what="best plan over the usual one, least", value=min(gains), unit="x", at_least=1.0),
        Check(what="best plan over the usual one, most", value=max(gains), unit="x", at_least=1.2),
        Check(what="energy saved", value=100 * _energy_saved(options), unit="%", at_least=10),
        Check(what="processor time of a search", value=search_s, unit=" s", at_most=900, steady=False),
    ]


def _gain(options: Sequence[Option], workload: tuple[float, float]) -> float:
    """How many times as fast the best of all plans is."""
    records = list(_requests(REQUESTS, workload, AT_ONCE))
    seconds = {option.plan: _run(option, records).measured.duration_s for option in options}
    return seconds[USUAL] / min(seconds.values())


def _energy_saved(options: Sequence[Option]) -> float:
    records = list(_requests(PACED_REQUESTS, (1.0, 1.0), 1.0))
    found = [
        _latency_and_energy(Option(replace(option.plan, data=data), option.limits), records)
        for option in options
        if option.plan.pipeline == 1
        for data in range(1, option.plan.data + 1)
    ]
    fastest_s, its_joules = min(found)
    return 1 - min(joules for seconds, joules in found if seconds <= SLOWER * fastest_s) / its_joules


def _latency_and_energy(option: Option, records: list[TraceRecord]) -> tuple[float, float]:
    """Mean seconds until a request is answered, and joules for each token of an answer."""
    meter = Meter(_cost(option.plan))
    done = _run(option, records, meter)
    assert done.measured.e2e_s is not None, "a plan that fits answers requests"
    on_s = option.plan.batches * done.measured.duration_s
    assert CLUSTER.device.idle_w is not None, "the catalogue knows this device's power"
    idle_j = option.plan.tensor * CLUSTER.device.idle_w * (on_s - meter.busy_s)
    tokens = sum(outcome.output_tokens for outcome in done.outcomes)
    return done.measured.e2e_s.mean, (meter.joules + idle_j) / tokens


def _run(option: Option, records: list[TraceRecord], meter: Meter | None = None) -> Simulation:
    cost = meter or _cost(option.plan)
    group = ReplicaSpec(models=(MODEL.name,), limits=option.limits, prefill_tokens_per_s=5000.0)
    return simulate(
        jobs_of(records, MODEL.name, Slo()),
        [ServerSpec(id=f"r{i:02}", spec=group, cost=cost) for i in range(option.plan.batches)],
        Controller(load("routing", "least_work"), load("queueing", "fcfs"), ControlSettings()),
        load("batching", "split_fuse"),
        leaping=meter is None,
    )


def _cost(plan: Plan) -> Staged:
    return Staged(Roofline(MODEL, CLUSTER.device, tensor_parallel=plan.tensor), MODEL, plan, CLUSTER)


def _requests(number: int, workload: tuple[float, float], rate: float) -> Iterator[TraceRecord]:
    """Those that fit the model's context."""
    prompts, answers = workload
    records = scale_lengths(open_trace("azure_conv_2023"), input_factor=prompts, output_factor=answers)
    fitting = (r for r in records if r.input_tokens + r.output_tokens <= LIMITS.context_tokens)
    return islice(scale_rate(fitting, rate), number)

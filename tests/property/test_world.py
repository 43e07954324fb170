"""Whatever the workload, fleet and policies: each simulated request ends once, and the log replays."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from millrace.control import Controller, ControlSettings
from millrace.control.log import replay
from millrace.core.cost import StepShape
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same
from tests.property.whole import BATCHINGS, WHOLE


class Affine(Struct, frozen=True):
    """A price with a part for every kind of work."""

    def step_s(self, shape: StepShape) -> float:
        attention = shape.decode_context_tokens + shape.prefill_attended_tokens
        return 0.01 + 1e-4 * shape.tokens + 1e-6 * attention

    def step_j(self, shape: StepShape) -> float:
        return 0.0


@st.composite
def workloads(draw: st.DrawFn) -> list[Job]:
    """Up to 25 requests that share prompts of up to 4 blocks, some of them for a model nobody serves."""
    jobs, t_s = [], 0.0
    for n in range(draw(st.integers(0, 25))):
        t_s += draw(st.floats(0.0, 0.5))
        prompt, output = draw(st.integers(1, 90)), draw(st.integers(1, 40))
        blocks = tuple(range(100, 100 + min(prompt // 16, draw(st.integers(0, 4)))))
        model = draw(st.sampled_from(["m", "m", "m", "absent"]))
        asked = Request(
            id=f"q{n}",
            model=model,
            prompt_tokens=prompt,
            max_tokens=output,
            blocks=blocks,
            priority=draw(st.sampled_from([0, 0, -1, 1])),
        )
        jobs.append(Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output, blocks=blocks))
    return jobs


limits = st.builds(
    Limits,
    step_tokens=st.integers(16, 64),
    sequences=st.integers(1, 6),
    kv_blocks=st.integers(30, 50),
    block_tokens=st.sampled_from([2, 4]),
    context_tokens=st.just(256),
    prefix_caching=st.booleans(),
)


any_world = given(
    jobs=workloads(),
    limit=limits,
    count=st.integers(1, 3),
    routing=st.sampled_from(WHOLE),
    batching=st.sampled_from(BATCHINGS),
    way_s=st.sampled_from([0.0, 0.003]),
)


def fleet_of(count: int, limit: Limits) -> list[ServerSpec]:
    """So many servers of one kind."""
    spec = ReplicaSpec(models=("m",), limits=limit)
    return [ServerSpec(id=f"r{n}", spec=spec, cost=Affine()) for n in range(count)]


@settings(max_examples=60, deadline=None)
@any_world
def test_every_request_ends_once_and_the_log_replays(
    *, jobs: list[Job], limit: Limits, count: int, routing: str, batching: str, way_s: float
) -> None:
    fleet = fleet_of(count, limit)
    controller = Controller(
        load("routing", routing), load("queueing", "fcfs"), ControlSettings(max_hold_s=1.0)
    )
    log: list[bytes] = []
    way = Surroundings(to_engine_s=way_s, from_engine_s=way_s, slowdowns=(1.0, 1.2, 1.7))
    found = simulate(jobs, fleet, controller, load("batching", batching), surroundings=way, log=log.append)

    assert Counter(o.id for o in found.outcomes) == Counter(j.request.id for j in jobs)
    for outcome, job in ((o, next(j for j in jobs if j.request.id == o.id)) for o in found.outcomes):
        fits = job.prompt_tokens + job.output_tokens <= min(256, limit.kv_blocks * limit.block_tokens + 1)
        expected = "refused" if job.request.model == "absent" else "completed" if fits else "failed"
        assert outcome.status == expected
        if expected == "completed":
            assert outcome.output_tokens == job.output_tokens
            assert outcome.ttft_s is not None
            assert outcome.e2e_s is not None
            assert 0 < outcome.ttft_s <= outcome.e2e_s
    assert not controller.state.flights
    replayed = replay(log)
    assert replayed.identical == replayed.actions


@settings(max_examples=150)
@any_world
def test_leaping_changes_nothing_but_the_time_it_takes(
    *, jobs: list[Job], limit: Limits, count: int, routing: str, batching: str, way_s: float
) -> None:
    fleet = fleet_of(count, limit)
    way = Surroundings(to_engine_s=way_s, from_engine_s=way_s)
    leapt, stepped = [
        simulate(
            jobs,
            fleet,
            Controller(load("routing", routing), load("queueing", "fcfs")),
            load("batching", batching),
            surroundings=way,
            leaping=leaping,
        ).outcomes
        for leaping in (True, False)
    ]
    assert_same(leapt, stepped)

"""Inter-token gaps counted run by run are those counted token by token."""

from __future__ import annotations

from math import pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.batch import BatchingPolicy
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.core.stats import Summary
from millrace.simulate import Job, ServerSpec
from millrace.simulate.faults import Fault
from millrace.simulate.gaps import Gaps
from millrace.simulate.server import Server
from millrace.simulate.surroundings import Surroundings
from tests.property.test_faults import play, scripts
from tests.property.test_runs import BATCHING
from tests.property.test_runs import limits as small_limits
from tests.property.test_world import Affine, limits, workloads
from tests.property.whole import BATCHINGS, WHOLE

ONE_BIN = 0.0101
POINTS = ("min", "p50", "p75", "p90", "p95", "p99", "max")

# Moments at which no step ends: there, a rounding error would decide.
moments = st.integers(1, 120).map(lambda n: n * 0.0103 + pi * 1e-5)
deeds = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 16), st.integers(1, 40)),
    st.tuples(st.just("add"), st.integers(1, 16), st.integers(1, 3)),
    st.tuples(st.just("abort"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("kill"), st.just(0), st.just(0)),
)


def agree(leapt: Summary | None, stepped: Summary | None) -> None:
    if leapt is None or stepped is None:
        assert leapt is stepped
        return
    assert leapt.count == stepped.count
    assert leapt.mean * leapt.count == pytest.approx(stepped.mean * stepped.count, abs=1e-6)
    for point in POINTS:
        assert getattr(leapt, point) == pytest.approx(getattr(stepped, point), rel=ONE_BIN)


@settings(max_examples=120, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    policies=st.tuples(st.sampled_from(WHOLE), st.sampled_from(BATCHINGS)),
    way_s=st.sampled_from([0.0, 0.003]),
    faults=scripts(),
)
def test_gaps_of_runs_are_those_of_their_steps(
    *, jobs: list[Job], limit: Limits, policies: tuple[str, str], way_s: float, faults: tuple[Fault, ...]
) -> None:
    way = Surroundings(to_engine_s=way_s, from_engine_s=way_s, faults=faults)
    fast, slow = (
        play(jobs, limit, policies, way, talk=False, itl=True, leaping=leaping) for leaping in (True, False)
    )
    agree(fast.itl_s, slow.itl_s)
    if not faults:
        told = sum(outcome.output_tokens - 1 for outcome in fast.outcomes if outcome.output_tokens)
        assert told == (fast.itl_s.count if fast.itl_s else 0)


def job(number: int, prompt: int, answer: int) -> Job:
    asked = Request(
        id=f"q{number}", model="m", prompt_tokens=prompt, max_tokens=answer, priority=-(number % 3 == 1)
    )
    return Job(t_s=0.0, request=asked, prompt_tokens=prompt, output_tokens=answer)


def lived(
    limit: Limits, batching: BatchingPolicy, life: list[tuple[float, tuple[str, int, int]]], *, leaping: bool
) -> Summary | None:
    """Let one engine live through this, and on until it has nothing to do; return its gaps."""
    server = Server(
        ServerSpec(id="r", spec=ReplicaSpec(models=("m",), limits=limit), cost=Affine()),
        batching,
        leaping=leaping,
    )
    server.gaps = Gaps()

    def advance(until_s: float) -> None:
        while server.busy and server.end_s <= until_s:
            server.finish()
            server.start(server.end_s)

    for number, (at_s, (deed, one, other)) in enumerate(life):
        advance(at_s)
        if deed == "kill":
            server.drop(at_s)
            continue
        if deed == "abort":
            if server.busy:
                server.cut(at_s)
            known = sorted(server.replica.batch.known)
            server.abort(known[one % len(known)] if known else "nobody")
        elif one + other <= limit.kv_blocks * limit.block_tokens:
            server.add(job(number, one, other))
            if server.busy:
                server.make_way(at_s)
        if not server.busy:
            server.start(at_s)
    advance(1e9)
    return server.gaps.seen.summary()


@settings(max_examples=300, deadline=None)
@given(
    limit=small_limits,
    batching=st.sampled_from(BATCHING),
    life=st.lists(st.tuples(moments, deeds), min_size=4, max_size=20, unique_by=lambda event: event[0]),
)
def test_gaps_of_an_engine_that_is_cut_preempted_aborted_and_killed_are_those_of_its_steps(
    limit: Limits, batching: BatchingPolicy, life: list[tuple[float, tuple[str, int, int]]]
) -> None:
    life = sorted(life)
    agree(
        lived(limit, batching, life, leaping=True),
        lived(limit, batching, life, leaping=False),
    )

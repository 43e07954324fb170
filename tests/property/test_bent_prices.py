"""A measured price bends, and a run of iterations ends where it does: leaping equals stepping there too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.cost import AttentionGrid, Bins, Curve, Operators, Profiled, Skew
from millrace.core.draw import draw_below
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate

CHUNKS, CACHED = (16, 24, 64), (0, 16, 48, 128)
DECODES, LENGTHS = (1, 2, 4), (16, 20, 32, 48, 64, 96, 128)
# Nearly all of a run leaps over something: long answers, few requests, bends every few tokens.
limits = Limits(step_tokens=24, sequences=5, kv_blocks=40, context_tokens=512)


def seconds(*batch: int) -> float:
    """A price that rises with the work, and unevenly."""
    return (1 + sum(batch)) * 1e-5 * (1 + draw_below(50, "uneven", *batch) / 100)


def grid(skew: Skew | None) -> AttentionGrid:
    times = {(0, 0, n, each): seconds(0, 0, n, each) for n in DECODES for each in LENGTHS}
    for chunk in CHUNKS:
        for cached in CACHED:
            times[chunk, cached, 0, 0] = seconds(chunk, cached, 0, 0)
            some = [each for each in LENGTHS if draw_below(3, "hole", chunk, cached, each)]
            for each in (*some, 192):
                times |= {(chunk, cached, n, each): seconds(chunk, cached, n, each) for n in DECODES}
    return AttentionGrid(times, skew)


skews = st.builds(
    Skew,
    default=st.sampled_from([0.0, 0.3]),
    rate=st.just(Bins((-0.01, 0.2, 0.5, 1.01), ("low", "half", "high"))),
    longest=st.just(Bins((0, 40, 70, 1000), ("short", "long", "longest"))),
    alphas=st.fixed_dictionaries(
        {
            (0, "any", "half", "short", "any"): st.just(0.4),
            (0, "any", "low", "long", "any"): st.just(-0.1),
            (0, "any", "high", "long", "any"): st.just(0.0),
        }
    ),
)


@st.composite
def workloads(draw: st.DrawFn) -> list[Job]:
    jobs, t_s = [], 0.0
    for n in range(draw(st.integers(1, 8))):
        t_s += draw(st.floats(0.0, 0.05))
        prompt, output = draw(st.integers(1, 150)), draw(st.integers(1, 120))
        asked = Request(id=f"q{n}", model="m", prompt_tokens=prompt, max_tokens=output)
        jobs.append(Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output))
    return jobs


@settings(max_examples=60)
@given(jobs=workloads(), skew=st.none() | skews, ahead=st.booleans())
def test_leaps_end_where_a_price_bends(*, jobs: list[Job], skew: Skew | None, ahead: bool) -> None:
    operators = Operators(dense=Curve((1, 8, 64), (1e-3, 1.1e-3, 3e-3)), head=Curve((1, 8), (1e-4, 2e-4)))
    spec = ReplicaSpec(models=("m",), limits=limits)
    server = ServerSpec(id="r0", spec=spec, cost=Profiled(operators, grid(skew)), ahead=ahead)
    leapt, stepped = (
        simulate(
            jobs,
            [replace(server)],
            Controller(load("routing", "round_robin"), load("queueing", "fcfs")),
            load("batching", "split_fuse"),
            leaping=leaping,
        ).outcomes
        for leaping in (True, False)
    )
    oracle = {outcome.id: outcome for outcome in stepped}
    assert len(leapt) == len(oracle) == len(jobs)
    for outcome in leapt:
        assert outcome.status == "completed"
        assert outcome.first_token_s == pytest.approx(oracle[outcome.id].first_token_s, abs=1e-9)
        assert outcome.finished_s == pytest.approx(oracle[outcome.id].finished_s, abs=1e-9)

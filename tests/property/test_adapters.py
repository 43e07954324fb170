"""However few adapters fit: leaps change nothing, nobody is lost, and no more are in use than may be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.control import Controller
from millrace.control.log import replay
from millrace.core.replica import Limits
from millrace.core.trace import TraceRecord
from millrace.policies import load, names
from millrace.simulate import Job, ServerSpec, Simulation, jobs_of, simulate
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same
from tests.property.test_world import fleet_of, limits, workloads
from tests.property.whole import WHOLE


@settings(max_examples=60, deadline=None)
@given(
    jobs=workloads(),
    needs=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=25, max_size=25),
    limit=limits,
    slots=st.integers(1, 3),
    load_s=st.sampled_from([0.0, 0.0317]),
    routing=st.sampled_from(WHOLE),
    batching=st.sampled_from(names("batching")),
)
def test_leaping_over_adapters_changes_nothing(
    *,
    jobs: list[Job],
    needs: list[str | None],
    limit: Limits,
    slots: int,
    load_s: float,
    routing: str,
    batching: str,
) -> None:
    asking = [
        replace(job, request=replace(job.request, adapter=adapter))
        for job, adapter in zip(jobs, needs, strict=False)
    ]
    fleet = [
        replace(one, spec=replace(one.spec, limits=replace(limit, adapters=slots), adapter_load_s=load_s))
        for one in fleet_of(2, limit)
    ]

    def play(*, leaping: bool) -> Simulation:
        controller = Controller(load("routing", routing), load("queueing", "fcfs"))
        log: list[bytes] = []
        found = simulate(
            asking,
            fleet,
            controller,
            load("batching", batching),
            surroundings=Surroundings(scrape_s=0.2),
            log=log.append,
            leaping=leaping,
        )
        assert not controller.state.flights
        assert all(len(r.adapters) <= slots for r in controller.state.replicas.values())
        assert replay(log).first_difference is None
        return found

    leapt, stepped = (play(leaping=leaping).outcomes for leaping in (True, False))
    assert {outcome.id for outcome in leapt} == {job.request.id for job in jobs}
    assert_same(leapt, stepped)


def test_a_step_waits_for_the_adapter_it_uses_first() -> None:
    def ends(load_s: float | None, *, ahead: bool = False) -> list[float]:
        limit = Limits(adapters=1)
        fleet: list[ServerSpec] = [
            replace(one, spec=replace(one.spec, limits=limit, adapter_load_s=load_s), ahead=ahead)
            for one in fleet_of(1, limit)
        ]
        rows = [
            TraceRecord(id=f"q{n}", t_s=9.0 * n, input_tokens=50, output_tokens=9, adapter=adapter)
            for n, adapter in enumerate(("a", "a", "b"))
        ]
        controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
        found = simulate(
            jobs_of(rows, "m", rows[0].slo), fleet, controller, load("batching", "split_fuse"), metered=True
        )
        return [o.finished_s or 0.0 for o in found.outcomes]

    for ahead in (False, True):
        plain, loading = ends(None, ahead=ahead), ends(0.5, ahead=ahead)
        later = [late - soon for soon, late in zip(plain, loading, strict=True)]
        assert later == pytest.approx([0.5, 0.0, 0.5])


def test_prompts_share_prefixes_with_those_of_the_same_adapter_only() -> None:
    rows = [
        TraceRecord(
            id=f"q{n}", t_s=9.0 * n, input_tokens=50, output_tokens=2, blocks=(1, 2, 3), adapter=adapter
        )
        for n, adapter in enumerate(("a", "b", None, "a", "b", None))
    ]
    limit = Limits()
    controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
    jobs = jobs_of(rows, "m", rows[0].slo)
    found = simulate(jobs, fleet_of(1, limit), controller, load("batching", "split_fuse"))
    assert [o.cached_tokens for o in found.outcomes] == [0, 0, 0, 48, 48, 48]

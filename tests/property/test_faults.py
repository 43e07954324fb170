"""Whatever dies, starts and drains while a fleet serves: leaps change nothing, and nobody is lost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.control import Controller, ControlSettings
from millrace.control.log import replay
from millrace.core.replica import Limits, ReplicaSpec
from millrace.policies import load, names
from millrace.simulate import Job, ServerSpec, Sessions, Simulation, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.sessions import Turn
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same
from tests.property.test_world import Affine, limits, workloads
from tests.property.whole import WHOLE

REPLICAS = 3


@st.composite
def scripts(draw: st.DrawFn, replicas: int = REPLICAS, most: int = 8) -> tuple[Fault, ...]:
    """Some faults, at moments at which no step ends: there, a rounding error would decide."""
    faults = draw(
        st.lists(
            st.builds(
                Fault,
                st.integers(0, 60).map(lambda n: n * 0.0917 + pi * 1e-5),
                st.sampled_from(["kill", "kill", "start", "drain"]),
                st.integers(0, replicas - 1).map("r{}".format),
            ),
            max_size=most,
        )
    )
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _talks(jobs: list[Job]) -> list[list[Turn]]:
    """Conversations of up to three turns, thought over for a time at the end of which no step ends."""
    talks = [jobs[n : n + 3] for n in range(0, len(jobs), 3)]
    return [
        [Turn(first), *(Turn(after, before.request.id, 0.1 + pi * 1e-5) for before, after in pairwise(talk))]
        for talk in talks
        for first in talk[:1]
    ]


def play(
    jobs: list[Job], limit: Limits, names: tuple[str, str], way: Surroundings, *, talk: bool, **how: object
) -> Simulation:
    spec = ReplicaSpec(models=("m",), limits=limit)
    fleet = [ServerSpec(id=f"r{n}", spec=spec, cost=Affine(), cold_start_s=0.3) for n in range(REPLICAS)]
    routing, batching = names
    controller = Controller(
        load("routing", routing), load("queueing", "fcfs"), ControlSettings(max_hold_s=1.01)
    )
    turns = Sessions(_talks(jobs)) if talk else jobs
    found = simulate(turns, fleet, controller, load("batching", batching), surroundings=way, **how)  # type: ignore[arg-type]
    ended, asked = Counter(o.id for o in found.outcomes), Counter(j.request.id for j in jobs)
    assert ended <= asked if talk else ended == asked
    assert not controller.state.flights
    for replica in controller.state.replicas.values():
        assert (replica.waiting, replica.running, replica.queued_tokens) == (0, 0, 0)
    return found


@settings(max_examples=100, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    policies=st.tuples(st.sampled_from(WHOLE), st.sampled_from(names("batching"))),
    way_s=st.sampled_from([0.0, 0.003, 0.2]),
    faults=scripts(),
    scrape_s=st.sampled_from([None, 0.3 + pi * 1e-5]),
    talk=st.booleans(),
    failover=st.booleans(),
)
def test_leaping_changes_nothing_when_replicas_die_and_come_back(
    *,
    jobs: list[Job],
    limit: Limits,
    policies: tuple[str, str],
    way_s: float,
    faults: tuple[Fault, ...],
    scrape_s: float | None,
    talk: bool,
    failover: bool,
) -> None:
    way = Surroundings(
        to_engine_s=way_s, from_engine_s=way_s, faults=faults, scrape_s=scrape_s, failover=failover
    )
    log: list[bytes] = []
    fast = play(jobs, limit, policies, way, talk=talk, log=log.append)
    assert replay(log).first_difference is None
    slow = play(jobs, limit, policies, way, talk=talk, leaping=False)
    assert fast.simulated_s == pytest.approx(slow.simulated_s, abs=1e-9)
    assert_same(fast.outcomes, slow.outcomes)
    asked = {job.request.id: (job.prompt_tokens, job.output_tokens) for job in jobs}
    for one in fast.outcomes:
        if one.status == "completed":
            assert (one.prompt_tokens, one.output_tokens) == asked[one.id]

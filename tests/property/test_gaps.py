"""Inter-token gaps counted run by run are those counted token by token."""

from __future__ import annotations

from math import pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.replica import Limits
from millrace.core.stats import Summary
from millrace.policies import names
from millrace.simulate import Job
from millrace.simulate.faults import Fault
from millrace.simulate.world import Surroundings
from tests.property.test_faults import play, scripts
from tests.property.test_world import limits, workloads

ONE_BIN = 0.0101


def agree(leapt: Summary | None, stepped: Summary | None) -> None:
    if leapt is None or stepped is None:
        assert leapt is stepped
        return
    assert leapt.count == stepped.count
    assert leapt.mean * leapt.count == pytest.approx(stepped.mean * stepped.count, abs=1e-6)
    for point in ("min", "p50", "p75", "p90", "p95", "p99", "max"):
        assert getattr(leapt, point) == pytest.approx(getattr(stepped, point), rel=ONE_BIN)


@settings(max_examples=150, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    policies=st.tuples(st.sampled_from(names("routing")), st.sampled_from(names("batching"))),
    way_s=st.sampled_from([0.0, 0.003]),
    faults=scripts(),
)
def test_gaps_of_runs_are_those_of_their_steps(
    *, jobs: list[Job], limit: Limits, policies: tuple[str, str], way_s: float, faults: tuple[Fault, ...]
) -> None:
    way = Surroundings(to_engine_s=way_s + pi * 1e-5, from_engine_s=way_s, faults=faults)
    fast, slow = (
        play(jobs, limit, policies, way, talk=False, itl=True, leaping=leaping) for leaping in (True, False)
    )
    agree(fast.itl_s, slow.itl_s)

"""Whatever befalls a fleet, every migration policy in the folder moves only what can be moved."""

from __future__ import annotations

from collections import Counter
from math import pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.control.log import replay
from millrace.core.fleet import FleetView
from millrace.core.replica import Limits
from millrace.policies import load, names
from millrace.simulate import Job, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.surroundings import Surroundings
from millrace.testing import strategies
from tests.property.test_faults import scripts
from tests.property.test_moving import fleet_of
from tests.property.test_world import limits, workloads

EAGER = {
    "dualmap": "dualmap(period_s=0.0531,slo_ttft_s=0.01,margin_s=0,wait_s=0,cache_factor=0,patience=900)",
    "llumnix": "llumnix(period_s=0.0531,low=40.0,high=40.0,concurrency=2)",
}


@pytest.mark.parametrize("name", names("migration"))
@settings(max_examples=25, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    known=st.booleans(),
    faults=scripts(3, 6),
    scrape_s=st.sampled_from([None, 0.3 + pi * 1e-5]),
)
def test_a_policy_moves_only_what_can_be_moved_and_its_log_replays(
    *,
    name: str,
    jobs: list[Job],
    limit: Limits,
    known: bool,
    faults: tuple[Fault, ...],
    scrape_s: float | None,
) -> None:
    """The controller complains of a move that cannot be made."""
    fleet = fleet_of(limit, 3)
    if known:
        told = replace(fleet[0].spec, prefill_tokens_per_s=900.0, decode_step_s=0.02)
        fleet[0] = replace(fleet[0], spec=told)
    controller = Controller(
        load("routing", "two_choices"),
        load("queueing", "fcfs"),
        ControlSettings(max_hold_s=1.01),
        migration=load("migration", EAGER.get(name, name)),
    )
    log: list[bytes] = []
    way = Surroundings(scrape_s=scrape_s, faults=faults)
    found = simulate(
        jobs, fleet, controller, load("batching", "split_fuse"), surroundings=way, log=log.append
    )
    assert Counter(o.id for o in found.outcomes) == Counter(job.request.id for job in jobs)
    assert replay(log).first_difference is None


@pytest.mark.parametrize("name", names("migration"))
@given(fleet=strategies.fleets())
def test_a_policy_has_nothing_to_move_where_nothing_is_under_way(name: str, fleet: FleetView) -> None:
    assert list(load("migration", name).rebalance(fleet)) == []

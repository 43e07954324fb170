"""What engines say of themselves in the middle of a leap is what they would say if it were stepped."""

from __future__ import annotations

from math import pi

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.control import Controller, ControlSettings
from millrace.core.event import Event, Reported
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load, names
from millrace.simulate import Job, Server, ServerSpec, Ties, World
from millrace.simulate.faults import Fault
from millrace.simulate.surroundings import Surroundings
from tests.property.sameness import assert_same
from tests.property.test_faults import scripts
from tests.property.test_world import Affine, limits, workloads


class EmptiestAtTheLastReport:
    """Goes by nothing but what the replicas last said of themselves."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        return Route(min(able, key=_fullness).id) if able else Hold("no ready replica")


def _fullness(replica: ReplicaView) -> tuple[int, int]:
    report = replica.report
    if report is None:
        return (0, 0)
    return ((report.waiting or 0) + (report.running or 0), -(report.kv_free_tokens or 0))


def play(
    jobs: list[Job], limit: Limits, batching: str, way: Surroundings, *, leaping: bool
) -> tuple[dict[str, Outcome], list[Reported]]:
    spec = ReplicaSpec(models=("m",), limits=limit)
    controller = Controller(
        EmptiestAtTheLastReport(), load("queueing", "fcfs"), ControlSettings(max_hold_s=1.01)
    )
    outcomes: list[Outcome] = []
    events: list[Event] = []
    servers = [
        Server(
            ServerSpec(id=f"r{n}", spec=spec, cost=Affine(), cold_start_s=0.3),
            load("batching", batching),
            leaping=leaping,
        )
        for n in range(3)
    ]
    world = World(
        controller,
        servers,
        Ties(finish=outcomes.append, watch=lambda event, _: events.append(event)),
        way,
    )
    world.run(jobs)
    last_s = max((o.finished_s or 0.0 for o in outcomes), default=0.0)
    reports = [e for e in events if isinstance(e, Reported) and e.report and e.now_s < last_s - 1e-6]
    return {outcome.id: outcome for outcome in outcomes}, reports


@settings(max_examples=100, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    batching=st.sampled_from(names("batching")),
    way_s=st.sampled_from([0.0, 0.003]),
    faults=st.one_of(st.just(()), scripts()),
    scrape_s=st.sampled_from([0.05, 0.3]),
)
def test_reports_and_what_follows_from_them_are_those_of_stepping(
    *, jobs: list[Job], limit: Limits, batching: str, way_s: float, faults: tuple[Fault, ...], scrape_s: float
) -> None:
    way = Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        scrape_s=scrape_s + pi * 1e-5,
        faults=faults,
    )
    leapt, reports = play(jobs, limit, batching, way, leaping=True)
    stepped, exact = play(jobs, limit, batching, way, leaping=False)
    assert reports == exact
    assert_same(leapt.values(), stepped.values())

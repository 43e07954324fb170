"""Whoever leaves a replica that drains takes the soonest way, and no token is lost or given twice."""

from __future__ import annotations

from itertools import product
from math import ceil, pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.control.flight import Flight
from millrace.core.fleet import ReplicaView
from millrace.core.replica import Limits, Report
from millrace.core.ways import Assumed, Way, Ways, soonest
from millrace.policies import load, names
from millrace.simulate import Job, Simulation, simulate
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link
from millrace.simulate.surroundings import Surroundings
from millrace.testing import fakes
from tests.property.restless import Restless
from tests.property.sameness import assert_same, assert_settled
from tests.property.test_faults import scripts
from tests.property.test_moving import busy, fleet_of
from tests.property.test_world import limits, workloads

STEP_TOKENS = 64


class Told(Struct, frozen=True):
    """What is drawn of a replica; None is what it does not say."""

    speed: float | None
    step_s: float | None
    kv_bytes: float | None
    kv_format: str | None
    queued: int
    coming: int
    running: int
    free: int | None

    def view(self, name: str) -> ReplicaView:
        said = Report(now_s=0.0, kv_free_tokens=self.free)
        return fakes.replica(
            name,
            prefill_tokens_per_s=self.speed,
            decode_step_s=self.step_s,
            kv_bytes_per_token=self.kv_bytes,
            kv_format=self.kv_format,
            limits=Limits(step_tokens=STEP_TOKENS),
            queued_tokens=self.queued,
            coming_tokens=self.coming,
            running=self.running,
            report=said,
        )


def or_none(*values: float) -> st.SearchStrategy[float | None]:
    return st.sampled_from([None, *values])


tolds = st.builds(
    Told,
    or_none(50.0, 800.0, 20_000.0),
    or_none(0.01, 0.2),
    or_none(10.0, 1e6),
    st.sampled_from([None, "f", "f", "g"]),
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(0, 3),
    st.sampled_from([None, 90, 3500]),
)


def expected(
    flight: Flight, source: Told, targets: list[Told], assumed: Assumed, *, now_s: float, ahead_bytes: float
) -> dict[tuple[str, str], float]:
    """Work out the seconds of each way once more, one line for each figure."""
    everybody = [source, *targets]
    slowest = min((one.speed for one in everybody if one.speed), default=assumed.prefill_tokens_per_s)
    longest_s = max((one.step_s for one in everybody if one.step_s), default=0.0)
    request, elapsed_s = flight.request, now_s - flight.started_s

    least = most = 0
    if flight.started:
        most = request.max_tokens
        if source.step_s:
            least = most = min(most, int(elapsed_s / source.step_s) + 1)
    context = request.prompt_tokens + most

    def work_s(one: Told, tokens: int) -> float:
        steps_s = ceil(tokens / STEP_TOKENS) * (one.step_s or longest_s) if one.running else 0.0
        return tokens / (one.speed or slowest) + steps_s

    if flight.started:
        stay_s = max(1, request.max_tokens - least) * (source.step_s or assumed.decode_step_s)
    else:
        stay_s = max(0.0, work_s(source, flight.queued_tokens) - (now_s - flight.sent_s))
    found = {("stay", "source"): stay_s}
    for number, one in enumerate(targets):
        if one.free is not None and one.free - one.coming < request.prompt_tokens:
            continue
        coming_s = one.coming / (one.speed or slowest)
        queue_s = work_s(one, one.queued) if one.queued else 0.0
        found["replay", f"t{number}"] = coming_s + queue_s + work_s(one, context)
        if flight.started and source.kv_bytes and source.kv_format and one.kv_format == source.kv_format:
            own_s = (ahead_bytes + context * source.kv_bytes) / assumed.link_bytes_per_s
            found["move", f"t{number}"] = assumed.link_latency_s + own_s
    return found


@settings(max_examples=200, deadline=None)
@given(
    source=tolds,
    targets=st.lists(tolds, max_size=4),
    started=st.booleans(),
    elapsed_s=st.sampled_from([0.0, 0.35, 7.0]),
    most=st.integers(1, 400),
    ahead_bytes=st.sampled_from([0.0, 1e8]),
    link=st.tuples(st.sampled_from([1e3, 1e7, 1e11]), st.sampled_from([0.0, 0.5])),
)
def test_the_way_taken_is_the_soonest_of_all_and_what_nobody_measured_is_never_for_nothing(
    *,
    source: Told,
    targets: list[Told],
    started: bool,
    elapsed_s: float,
    most: int,
    ahead_bytes: float,
    link: tuple[float, float],
) -> None:
    assumed = Assumed(link_bytes_per_s=link[0], link_latency_s=link[1])
    request = fakes.request(max_tokens=most)
    flight = Flight(request, 0, "m", 3, replica="source", started=started, queued_tokens=100)
    here = source.view("source")
    others = [one.view(f"t{number}") for number, one in enumerate(targets)]
    fleet = fakes.fleet(here, *others, now_s=elapsed_s, flights={"q": flight})
    found = Ways(assumed).on(
        flight, here, others, fleet, waiting=fleet.flights.values(), ahead_bytes=ahead_bytes
    )
    sums = expected(flight, source, targets, assumed, now_s=elapsed_s, ahead_bytes=ahead_bytes)
    assert {(way.kind, way.replica) for way in found} == sums.keys()
    assert all(way.seconds == pytest.approx(sums[way.kind, way.replica]) for way in found)
    assert soonest(found).seconds == min(way.seconds for way in found)
    assert all(way.seconds > 0 for way in found if way.kind != "stay" or started)


@given(st.permutations(list(product(("stay", "move", "replay"), (1.0, 2.0), (5, 9), "ab"))))
def test_of_equal_ways_the_one_that_changes_least_is_taken_to_who_has_least_to_do(
    drawn: list[tuple[str, float, int, str]],
) -> None:
    ways = [Way(kind, replica, seconds, load) for kind, seconds, load, replica in drawn]  # type: ignore[arg-type]
    assert soonest(ways) == Way("stay", "a", 1.0, 5)
    assert soonest(way for way in ways if way.kind != "stay") == Way("move", "a", 1.0, 5)


def play(
    jobs: list[Job], limit: Limits, way: Surroundings, *, speeds: bool, moving: bool, leaping: bool
) -> Simulation:
    """Run a fleet whose answers leave; assert that nobody is lost, and that answers are not cut or longer."""
    said: dict[str, object] = {"kv_format": "f", "kv_bytes_per_token": 1e4}
    if speeds:
        said |= {"prefill_tokens_per_s": 300.0, "decode_step_s": 0.02}
    fleet = [replace(one, spec=replace(one.spec, **said)) for one in fleet_of(limit, 3)]
    leaving = Assumed(
        period_s=0.7131, link_bytes_per_s=way.link.bytes_per_s, link_latency_s=way.link.latency_s
    )
    controller = Controller(
        load("routing", "two_choices"),
        load("queueing", "fcfs"),
        ControlSettings(max_hold_s=1.01, leaving=leaving),
        migration=Restless(one_in=8) if moving else None,
    )
    log: list[bytes] = []
    batching = load("batching", names("batching")[0])
    found = simulate(jobs, fleet, controller, batching, surroundings=way, log=log.append, leaping=leaping)
    assert_settled(jobs, found.outcomes, controller, log)
    lengths = {job.request.id: (job.prompt_tokens, job.output_tokens) for job in jobs}
    done = [one for one in found.outcomes if one.status == "completed"]
    assert all((one.prompt_tokens, one.output_tokens) == lengths[one.id] for one in done)
    return found


@settings(max_examples=50, deadline=None)
@given(
    jobs=workloads(),
    limit=limits,
    way_s=st.sampled_from([0.0, 0.003, 0.2]),
    bytes_per_s=st.sampled_from([1e9, 9.1e5, 1e3]),
    faults=scripts(3, 8),
    scrape_s=st.sampled_from([None, 0.3 + pi * 1e-5]),
    speeds=st.booleans(),
    moving=st.booleans(),
)
def test_leaping_over_those_who_leave_changes_nothing(
    *,
    jobs: list[Job],
    limit: Limits,
    way_s: float,
    bytes_per_s: float,
    faults: tuple[Fault, ...],
    scrape_s: float | None,
    speeds: bool,
    moving: bool,
) -> None:
    way = Surroundings(
        to_engine_s=way_s,
        from_engine_s=way_s,
        scrape_s=scrape_s,
        faults=faults,
        link=Link(bytes_per_s=bytes_per_s, latency_s=0.00071),
        failover=True,
    )
    leapt, stepped = (
        play(jobs, limit, way, speeds=speeds, moving=moving, leaping=leaping) for leaping in (True, False)
    )
    assert_same(leapt.outcomes, stepped.outcomes)


def test_a_replica_of_a_busy_fleet_may_drain_and_everybody_completes() -> None:
    moves = 0
    for seed in range(6):
        jobs, limit = busy(seed)
        way = Surroundings(
            to_engine_s=0.003,
            from_engine_s=0.003,
            faults=(Fault(1.0 + pi * 1e-5, "drain", "r0"),),
            link=Link(bytes_per_s=(1e9, 1e3)[seed % 2], latency_s=0.00071),
            failover=True,
        )
        found = play(jobs, limit, way, speeds=True, moving=False, leaping=True)
        assert {one.status for one in found.outcomes} == {"completed"}
        moves += sum(one.moves for one in found.outcomes)
    assert moves > 0

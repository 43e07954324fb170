"""Two choices: a busy replica is mostly avoided, by a draw that can be drawn again."""

from __future__ import annotations

from collections import Counter

from millrace.core.fleet import FleetView, Hold, Route
from millrace.core.replica import Limits, Report
from millrace.policies.routing.two_choices import Policy
from millrace.testing import fakes


def _chosen(fleet: FleetView, *, seed: int = 0, number: int = 400) -> list[str]:
    decisions = [Policy(seed=seed).route(fakes.request(f"q{n}"), fleet) for n in range(number)]
    return [decision.replica for decision in decisions if isinstance(decision, Route)]


def test_of_two_replicas_the_busier_is_never_chosen() -> None:
    fleet = fakes.fleet(fakes.replica("busy", running=1), fakes.replica("idle"))
    assert set(_chosen(fleet)) == {"idle"}


def test_the_busiest_of_many_is_never_chosen_and_the_idlest_most_often() -> None:
    fleet = fakes.fleet(*(fakes.replica(f"r{n}", waiting=n) for n in range(5)))
    found = Counter(_chosen(fleet, number=1000))
    assert [name for name, _ in found.most_common()] == ["r0", "r1", "r2", "r3"]
    assert 350 < found["r0"] < 450  # in 4 of 10 pairs


def test_equally_busy_replicas_are_chosen_equally_often() -> None:
    fleet = fakes.fleet(*(fakes.replica(f"r{n}") for n in range(4)))
    assert all(75 < number < 125 for number in Counter(_chosen(fleet)).values())


def test_the_same_seed_draws_the_same_replicas_and_another_seed_others() -> None:
    fleet = fakes.fleet(*(fakes.replica(f"r{n}") for n in range(4)))
    assert _chosen(fleet) == _chosen(fleet)
    assert _chosen(fleet) != _chosen(fleet, seed=1)


def test_a_single_replica_needs_no_draw() -> None:
    assert set(_chosen(fakes.fleet(fakes.replica("only", waiting=9)))) == {"only"}


def test_kv_usage_decides_if_it_is_known_of_both_and_requests_if_not() -> None:
    idle = fakes.replica("idle", running=1, limits=Limits(), report=Report(now_s=0.0, kv_free_tokens=100))
    busy = fakes.replica("busy", running=9, limits=Limits(), report=Report(now_s=0.0, kv_free_tokens=200))
    request, fleet = fakes.request(), fakes.fleet(idle, busy)
    assert Policy(by_kv_usage=True).route(request, fleet) == Route("busy")
    assert Policy().route(request, fleet) == Route("idle")
    for silent in (idle, busy):
        spoke, silent.report = silent.report, None
        assert Policy(by_kv_usage=True).route(request, fleet) == Route("idle")
        silent.report = spoke


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")

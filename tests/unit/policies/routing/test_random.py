"""Random: a draw per request, even and repeatable."""

from __future__ import annotations

from collections import Counter

from millrace.core.fleet import FleetView, Hold, Route
from millrace.policies.routing.random import Policy
from millrace.testing import fakes


def _fleet(**fields: frozenset[str]) -> FleetView:
    return fakes.fleet(*(fakes.replica(name, waiting=n) for n, name in enumerate("abcd")), **fields)


def _chosen(fleet: FleetView, *, seed: int = 0) -> list[str]:
    decisions = [Policy(seed=seed).route(fakes.request(f"q{n}"), fleet) for n in range(400)]
    return [decision.replica for decision in decisions if isinstance(decision, Route)]


def test_everybody_is_drawn_about_as_often_whatever_the_load() -> None:
    assert all(75 < number < 125 for number in Counter(_chosen(_fleet())).values())


def test_a_request_draws_the_same_again_and_another_with_another_seed() -> None:
    assert _chosen(_fleet()) == _chosen(_fleet())
    assert _chosen(_fleet()) != _chosen(_fleet(), seed=1)


def test_a_request_that_failed_draws_among_the_others() -> None:
    assert set(_chosen(_fleet(avoid=frozenset("a")))) == set("bcd")


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")

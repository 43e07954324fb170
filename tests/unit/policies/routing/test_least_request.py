"""Least request: waiting and running requests count alike, ties are drawn."""

from __future__ import annotations

from millrace.core.fleet import Hold, ReplicaView, Route
from millrace.policies.routing.least_request import Policy
from millrace.testing import fakes


def _chosen(*replicas: ReplicaView) -> set[str]:
    decisions = [Policy().route(fakes.request(f"q{n}"), fakes.fleet(*replicas)) for n in range(40)]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def test_the_one_with_the_fewest_requests_in_flight_is_chosen() -> None:
    few = fakes.replica("few", waiting=1, running=2, queued_tokens=9000)
    assert _chosen(fakes.replica("many", waiting=4), few, fakes.replica("most", running=5)) == {"few"}


def test_equals_are_drawn() -> None:
    even = [fakes.replica("a", waiting=1), fakes.replica("b", running=1), fakes.replica("c", running=2)]
    assert _chosen(*even) == {"a", "b"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")

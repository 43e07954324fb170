"""Whatever the fleet, every routing policy in the folder keeps the rules of routing policies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.event import Event
from millrace.core.fleet import FleetView, ReplicaView, Route
from millrace.core.replica import Report
from millrace.policies import load, names
from millrace.testing import fakes, strategies
from millrace.testing.cases import Case
from millrace.testing.checks import check_routing_policy
from tests.property.replaying import recorded, replays


@pytest.mark.parametrize("name", names("routing"))
@given(case=strategies.decisions())
def test_a_policy_keeps_the_rules(name: str, case: Case) -> None:
    check_routing_policy(load("routing", name), [case])


@pytest.mark.parametrize("name", names("routing"))
@given(fleet=strategies.fleets(), number=st.integers(0, 3))
def test_a_policy_uses_whoever_is_able_instead_of_holding(name: str, fleet: FleetView, number: int) -> None:
    request = fakes.request(f"q{number}")
    if fleet.able(request):
        assert isinstance(load("routing", name).route(request, fleet), Route)


@pytest.mark.parametrize("name", names("routing"))
@given(replica=strategies.replicas())
def test_a_policy_copes_with_a_replica_of_which_nothing_is_known(name: str, replica: ReplicaView) -> None:
    replica.phase, replica.spec = "ready", fakes.replica("x", models=("m",)).spec
    replica.report = Report(now_s=0.0)
    decision = load("routing", name).route(fakes.request(), fakes.fleet(replica))
    assert isinstance(decision, Route)
    assert decision.replica == replica.id


@pytest.mark.parametrize("name", names("routing"))
@settings(max_examples=40)
@given(history=strategies.histories())
def test_a_log_under_a_policy_replays_bit_for_bit(name: str, history: list[Event]) -> None:
    assert replays(recorded(history, routing=name))

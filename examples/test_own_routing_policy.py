"""How to test a policy: build the few replicas and requests it is about, and ask it."""

from __future__ import annotations

from examples.own_routing_policy import Policy
from millrace.core.fleet import Route, RoutingPolicy
from millrace.testing.checks import check_routing_policy
from millrace.testing.fakes import fleet, replica, request

POLICY: RoutingPolicy = Policy()


def test_a_conversation_stays_where_it_began() -> None:
    turns = [request(f"turn-{n}", session="ann") for n in range(9)]
    four = fleet(*(replica(name) for name in "abcd"))
    assert len({POLICY.route(turn, four) for turn in turns}) == 1


def test_conversations_spread_over_the_fleet() -> None:
    four = fleet(*(replica(name) for name in "abcd"))
    chosen = [POLICY.route(request(f"q{n}", session=f"s{n}"), four) for n in range(400)]
    assert all(chosen.count(Route(name, why="session")) > 60 for name in "abcd")


def test_a_request_of_no_conversation_goes_where_it_is_quiet() -> None:
    assert POLICY.route(request(), fleet(replica("busy", running=3), replica("quiet"))) == Route("quiet")


def test_it_keeps_the_rules_of_every_routing_policy() -> None:
    check_routing_policy(POLICY)

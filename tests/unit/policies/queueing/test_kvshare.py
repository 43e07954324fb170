"""KVShare's order: the most cached prompt first, nobody overtaken for ever."""

from __future__ import annotations

import pytest

from millrace.control.flight import Flight
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.request import Request
from millrace.policies.queueing.kvshare import Policy
from millrace.testing import fakes

BLOCKS = tuple(range(6))


def asked(id: str, blocks: int, *, prompt_tokens: int = 100) -> Request:
    return fakes.request(id, prompt_tokens=prompt_tokens, blocks=BLOCKS[:blocks])


def order(*held: Request, fleet: FleetView, **settings: float) -> list[str]:
    return [one.id for one in Policy(**settings).order(iter(held), fleet)]


def holding(id: str, blocks: int, **fields: str) -> ReplicaView:
    return fakes.replica(id, sent=(asked("before", blocks),), **fields)


def test_the_largest_share_that_some_ready_replica_holds_goes_first() -> None:
    fleet = fakes.fleet(holding("a", 2), holding("b", 4), holding("c", 6, phase="draining"))
    held = asked("none", 0), asked("most", 6), asked("all", 4, prompt_tokens=64), asked("some", 2)
    assert order(*held, fleet=fleet) == ["all", "most", "some", "none"]


def test_equals_and_those_for_whom_nobody_is_ready_keep_the_order_of_arrival() -> None:
    held = asked("c", 2), asked("a", 2), asked("b", 2)
    assert order(*held, fleet=fakes.fleet(holding("a", 2))) == ["c", "a", "b"]
    assert order(*held, fleet=fakes.fleet()) == ["c", "a", "b"]
    assert order(asked("q", 1), fleet=fakes.fleet()) == ["q"]


def test_who_has_waited_long_enough_is_overtaken_by_nobody() -> None:
    new, old, older = asked("new", 6), asked("old", 0), asked("older", 1)
    arrived = {"new": 9.0, "older": 3.0, "old": 4.0}
    flights = {name: Flight(asked(name, 0), 0, "m", 3, arrived_s=s) for name, s in arrived.items()}
    fleet = fakes.fleet(holding("a", 6), now_s=10.0, flights=flights)
    assert order(older, old, new, fleet=fleet, patience_s=6.0) == ["older", "old", "new"]
    assert order(older, old, new, fleet=fleet, patience_s=6.5) == ["older", "new", "old"]
    assert order(older, old, new, fleet=fleet, patience_s=8.0) == ["new", "older", "old"]


def test_patience_is_a_time() -> None:
    with pytest.raises(ValueError, match="patience_s is -1"):
        Policy(patience_s=-1.0)

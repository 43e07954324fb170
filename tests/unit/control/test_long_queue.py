"""A long queue costs what a short one does, and a page of metrics says who waits in few lines."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from millrace.control import Band
from millrace.core.event import Arrived, Finished
from millrace.core.fleet import QueueingPolicy, Waiting
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.control.scripted import arrive
from tests.unit.control.test_queue_rules import Shortest, free, full


def _calls(policy: QueueingPolicy, held: int) -> int:
    """Count the functions called while 20 are sent from a queue of this length, and as many come."""
    controller, calls = full(queueing=policy, max_held=held + 1), 0
    for n in range(held):
        arrive(controller, f"q{n}", prompt_tokens=1 + n * 7 % 100)

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    for n in range(20):
        running = next(name for name, one in controller.state.flights.items() if one.replica)
        controller.on(Finished(1.0, running))
        controller.on(Arrived(1.0, fakes.request(f"more{n}")))
    sys.setprofile(None)
    return calls


@pytest.mark.parametrize("policy", [Shortest, lambda: load("queueing", "fcfs")])
def test_who_is_next_costs_the_same_in_a_long_queue(policy: Any) -> None:
    assert _calls(policy(), 4000) <= 1.3 * _calls(policy(), 200)


def test_who_waits_is_told_by_model_band_and_the_largest_tenants() -> None:
    controller = full(bands=(Band(priority=0), Band(priority=10)))
    for n in range(25):
        arrive(controller, f"a{n}", 1.0 + n, tenant=f"t{n}", priority=n % 2 * 10)
    for n in range(20):
        arrive(controller, f"b{n}", 30.0, tenant=f"t{n + 5}", priority=0)
    found = controller.waiting(40.0)
    assert Waiting("m", 0, "other", 3, 39.0) in found
    assert Waiting("m", 10, "other", 2, 38.0) in found
    assert Waiting("m", 0, "t6", 2, 33.0) in found
    assert Waiting("m", 10, "t5", 1, 34.0) in found
    assert sum(one.held for one in found) == 45
    free(controller, 41.0)
    assert sum(one.held for one in controller.waiting(41.0)) == 44

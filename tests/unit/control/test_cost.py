"""What a decision costs, counted in function calls and bytes instead of seconds."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.event import Arrived, Finished, Started
from millrace.policies import names
from millrace.testing import fakes
from tests.unit.control.scripted import controller_of

RUNNING = 3  # requests in flight per replica at any time


def _fleet(routing: str, replicas: int) -> Controller:
    small_index_bytes = 20 * 120  # full after a few requests
    ids = (f"r{n}" for n in range(replicas))
    return controller_of(*ids, routing=routing, prefix_index_bytes=small_index_bytes)


def _serve(controller: Controller, first: int, last: int) -> None:
    for n in range(first, last):
        blocks = (n % 7, *(1000 + 10 * n + k for k in range(4)))
        controller.on(Arrived(float(n), fakes.request(f"q{n:06}", blocks=blocks)))
        controller.on(Started(float(n), f"q{n:06}"))
        controller.on(Finished(float(n), f"q{n - RUNNING * len(controller.state.replicas):06}"))


def _calls(controller: Controller, first: int, last: int) -> int:
    """Return how many functions, Python's and C's, it takes to serve these requests."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    _serve(controller, first, last)
    sys.setprofile(None)
    return calls


@pytest.mark.parametrize("routing", names("routing"))
def test_a_request_costs_the_same_after_a_long_history(routing: str) -> None:
    controller = _fleet(routing, 4)
    _serve(controller, 0, 200)
    early = _calls(controller, 200, 400)
    _serve(controller, 400, 5000)
    late = _calls(controller, 5000, 5200)
    assert late == pytest.approx(early, rel=0.1)  # a tree may branch a little more


@pytest.mark.parametrize("routing", names("routing"))
def test_the_cost_grows_with_the_fleet_at_most_in_proportion(routing: str) -> None:
    def calls(replicas: int) -> int:
        controller = _fleet(routing, replicas)
        _serve(controller, 0, 200)
        return _calls(controller, 200, 300)

    small, medium, large = calls(16), calls(32), calls(64)
    assert medium <= 1.1 * 2 * small
    assert large <= 1.1 * 2 * medium


def test_replicas_that_are_not_looked_at_cost_nothing() -> None:
    def calls(replicas: int) -> int:
        controller = _fleet("round_robin", replicas)
        _serve(controller, 0, 300)
        return _calls(controller, 300, 400)

    assert calls(64) == pytest.approx(calls(8), rel=0.02)


@pytest.mark.parametrize("routing", names("routing"))
def test_a_request_without_blocks_asks_no_prefix_index(routing: str) -> None:
    controller = _fleet(routing, 4)
    for n in range(50):
        controller.on(Arrived(float(n), fakes.request(f"q{n}")))
    assert set(controller.prefix_index_bytes().values()) == {0}


def test_memory_does_not_grow_with_history() -> None:
    controller = _fleet("least_work", 4)
    _serve(controller, 0, 1000)
    early = len(pickle.dumps(controller.state))
    _serve(controller, 1000, 6000)
    assert len(pickle.dumps(controller.state)) == pytest.approx(early, rel=0.05)
    assert len(controller.state.flights) == 4 * RUNNING

"""Prefix hash: a place on the ring, and the least loaded replica where that place carries too much."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.core.draw import draw
from millrace.core.fleet import FleetView, Hold, Route
from millrace.core.request import Request
from millrace.core.ring import Ring
from millrace.policies.routing.prefix_hash import Policy
from millrace.testing import fakes


def _fleet(*in_flight: int, avoid: str = "") -> FleetView:
    replicas = (fakes.replica(f"r{n}", running=load) for n, load in enumerate(in_flight))
    return fakes.fleet(*replicas, avoid=frozenset({avoid} - {""}))


def _prompt(prefix: int, id: str = "q") -> Request:
    """A prompt whose first 16 blocks (256 tokens) belong to its prefix, and 4 more to itself."""
    return fakes.request(id, blocks=(*range(prefix * 100, prefix * 100 + 16), draw(id), 1, 2, 3))


def _home(request: Request, fleet: FleetView, policy: Policy | None = None) -> str:
    decision = (policy or Policy()).route(request, fleet)
    assert isinstance(decision, Route)
    return decision.replica


def test_prompts_that_begin_alike_go_where_the_ring_says() -> None:
    ring = Ring(["r0", "r1", "r2"], 150)
    for prefix in range(20):
        homes = {_home(_prompt(prefix, f"q{n}"), _fleet(0, 0, 0)) for n in range(5)}
        assert homes == {ring.owner(prefix * 100 + 15)}


def test_prefixes_are_spread() -> None:
    found = Counter(_home(_prompt(prefix), _fleet(0, 0, 0, 0)) for prefix in range(400))
    assert all(60 < number < 140 for number in found.values())


def test_the_bound_is_a_quarter_above_the_mean_with_the_request_at_hand() -> None:
    home = int(_home(_prompt(1), _fleet(0, 0, 0, 0))[1:])
    # 100 requests: 1.25 * 101 / 4 = 31.56, so 31 are within bounds and 32 are not.
    within, above = [23] * 4, [23] * 4
    within[home], above[home] = 31, 32
    above[(home + 1) % 4] = 22
    assert _home(_prompt(1), _fleet(*within)) == f"r{home}"
    assert _home(_prompt(1), _fleet(*above)) == f"r{(home + 1) % 4}"


def test_a_prompt_of_a_loaded_replica_goes_to_the_least_loaded_and_not_to_the_next() -> None:
    assert {_home(_prompt(prefix), _fleet(9, 9, 9, 0)) for prefix in range(40)} == {"r3"}
    first = Ring(["r0", "r1", "r2", "r3"], 150).owner(115)
    busy = _fleet(*(9 if f"r{n}" == first else 0 for n in range(4)))
    taken = {_home(_prompt(1, f"q{n}"), busy) for n in range(40)}
    assert taken == {"r0", "r1", "r2", "r3"} - {first}


def test_a_replica_to_avoid_is_walked_past() -> None:
    for prefix in range(30):
        first, second = list(Ring(["r0", "r1", "r2"], 150).walk(prefix * 100 + 15))[:2]
        assert _home(_prompt(prefix), _fleet(0, 0, 0, avoid=first)) == second


def test_a_prompt_too_short_to_share_goes_to_the_least_loaded() -> None:
    assert _home(fakes.request(), _fleet(2, 1, 3)) == "r1"


def test_the_key_is_counted_in_tokens() -> None:
    request = fakes.request(blocks=tuple(range(10)), block_tokens=64)
    assert [Policy(prefix_tokens=n).key(request) for n in (1, 64, 65, 256, 9999)] == [0, 0, 1, 3, 9]


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="prefix_tokens is 0"):
        Policy(prefix_tokens=0)
    with pytest.raises(ValueError, match=r"load_factor is 0\.5"):
        Policy(load_factor=0.5)
    with pytest.raises(ValueError, match="virtual_nodes is 0"):
        Policy(virtual_nodes=0)

"""Session affinity: a session stays, and moves only when its replica is gone."""

from __future__ import annotations

from collections import Counter

from millrace.core.draw import draw
from millrace.core.fleet import Hold, Route
from millrace.policies.routing.session_affinity import Policy
from millrace.testing import fakes


def _homes(names: str, *, seed: int = 0, busy: str = "", sessions: int = 400) -> list[str]:
    fleet = fakes.fleet(*(fakes.replica(name, waiting=50 * (name in busy)) for name in names))
    asked = [fakes.request(f"q{n}", session=f"s{n}") for n in range(sessions)]
    decisions = [Policy(seed=seed).route(request, fleet) for request in asked]
    return [decision.replica for decision in decisions if isinstance(decision, Route)]


def test_a_session_stays_whatever_the_load() -> None:
    assert _homes("abcd") == _homes("abcd", busy="ab")


def test_the_highest_draw_of_session_and_replica_wins() -> None:
    expected = [max("abcd", key=lambda name: draw(f"s{n}", name, 0)) for n in range(400)]
    assert _homes("abcd") == expected


def test_sessions_are_spread_evenly_and_dealt_anew_by_another_seed() -> None:
    assert all(70 < number < 130 for number in Counter(_homes("abcd")).values())
    assert _homes("abcd") != _homes("abcd", seed=1)


def test_a_replica_that_leaves_moves_only_its_own_sessions() -> None:
    pairs = list(zip(_homes("abcd"), _homes("abc"), strict=True))
    assert all(before == after for before, after in pairs if before != "d")
    assert {after for before, after in pairs if before == "d"} == set("abc")


def test_a_request_of_no_session_goes_to_the_fewest_requests() -> None:
    fleet = fakes.fleet(
        fakes.replica("a", waiting=2), fakes.replica("b", running=1), fakes.replica("c", running=1)
    )
    chosen = {Policy().route(fakes.request(f"q{n}"), fleet) for n in range(40)}
    assert chosen == {Route("b"), Route("c")}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")

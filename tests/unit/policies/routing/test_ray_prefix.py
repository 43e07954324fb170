"""Ray Serve's prefix-aware router: match rate, smallest trees, shortest queues, and a balance that is off."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.core.event import Reported, Ticked
from millrace.core.fleet import FleetView, Hold, Route, Sent
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.ray_prefix import Policy
from millrace.testing import fakes

PROMPT = tuple(range(100))


def _request(id: str = "q", blocks: tuple[int, ...] = PROMPT) -> Request:
    return fakes.request(id, blocks=blocks)


def _fleet(*loads: int) -> FleetView:
    return fakes.fleet(*(fakes.replica(f"r{n}", waiting=load) for n, load in enumerate(loads)))


def _chosen(policy: Policy, fleet: FleetView, blocks: tuple[int, ...] = PROMPT) -> Counter[str]:
    decisions = [policy.route(_request(f"q{n}", blocks), fleet) for n in range(40)]
    return Counter(decision.replica for decision in decisions if isinstance(decision, Route))


def _sent(policy: Policy, name: str, blocks: tuple[int, ...] = PROMPT, now_s: float = 0.0) -> Policy:
    policy.note(Sent(now_s, _request(f"to {name}", blocks), name))
    return policy


def test_published_the_load_is_never_balanced() -> None:
    """The default threshold is infinite: a queue of a thousand is no reason to go elsewhere."""
    assert set(_chosen(_sent(Policy(), "r1"), _fleet(0, 1000))) == {"r1"}


def test_a_threshold_balances_by_two_choices() -> None:
    policy = _sent(Policy(imbalanced_threshold=10.0), "r1")
    assert set(_chosen(policy, _fleet(0, 10, 0))) == {"r1"}
    found = _chosen(policy, _fleet(0, 11, 2))
    assert set(found) == {"r0", "r2"}  # r1 is never the shorter one of two
    assert found["r0"] > found["r2"]


def test_a_tenth_of_the_prompt_is_match_enough() -> None:
    assert set(_chosen(_sent(Policy(), "r1", PROMPT[:10]), _fleet(0, 0, 0))) == {"r1"}
    assert set(_chosen(_sent(Policy(), "r1", PROMPT[:9]), _fleet(0, 0, 0))) == {"r0", "r2"}


def test_of_equal_matches_the_shortest_queue_serves() -> None:
    policy = _sent(_sent(Policy(), "r0"), "r2")
    assert set(_chosen(policy, _fleet(3, 0, 2))) == {"r2"}
    assert set(_chosen(policy, _fleet(3, 0, 3))) == {"r0", "r2"}


def test_without_a_match_the_smallest_trees_compete_by_queue() -> None:
    policy = _sent(_sent(Policy(), "r0", (7,)), "r1", (8, 9))
    assert set(_chosen(policy, _fleet(0, 0), PROMPT)) == {"r0"}
    assert set(_chosen(policy, _fleet(0, 0), ())) == {"r0"}
    assert set(_chosen(policy, _fleet(0, 0, 5, 4), PROMPT)) == {"r3"}  # who was sent nothing


def test_who_is_not_able_is_no_match() -> None:
    policy, fleet = _sent(_sent(Policy(), "r0", PROMPT[:20]), "r1"), _fleet(0, 0, 0)
    fleet.replicas[1].phase = "draining"
    assert set(_chosen(policy, fleet)) == {"r0"}


def test_a_replica_that_starts_anew_has_the_smallest_tree() -> None:
    policy = _sent(_sent(_sent(Policy(), "r0", (7,)), "r1"), "r2", (9,))
    policy.note(Reported(1.0, "r1", "starting"))
    assert set(_chosen(policy, _fleet(0, 0, 0))) == {"r1"}


@pytest.mark.parametrize(("told_to", "kept"), [(False, True), (True, False)])
def test_a_replica_over_the_threshold_forgets_the_oldest_if_told_to(told_to: bool, kept: bool) -> None:
    policy = Policy(do_eviction=told_to, eviction_threshold_tokens=1600, eviction_target_tokens=1500)
    _sent(policy, "r1", PROMPT[:50])
    _sent(policy, "r1", tuple(range(1000, 1051)), now_s=1.0)
    _sent(policy, "r0", tuple(range(2000, 2100)), now_s=1.0)  # is not over it
    policy.note(Ticked(9.0))
    assert set(_chosen(policy, _fleet(0, 0))) == {"r1"}
    policy.note(Ticked(10.0))
    assert (set(_chosen(policy, _fleet(5, 0, 0))) == {"r1"}) == kept
    assert set(_chosen(policy, _fleet(0, 0), tuple(range(1000, 1051)))) == {"r1"}
    assert set(_chosen(policy, _fleet(0, 0), tuple(range(2000, 2100)))) == {"r0"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(_request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("imbalanced_threshold=-1", "imbalanced_threshold is -1"),
        ("match_rate_threshold=-0.1", r"match_rate_threshold is -0\.1; it is a share"),
        ("eviction_target_tokens=100001", "eviction_target_tokens is 100001; it must not be above"),
        ("eviction_interval_s=0", "a period is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("routing", f"ray_prefix({settings})")

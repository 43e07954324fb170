"""The production stack's prefix-aware router: the longest match, at random among equals, blind to load."""

from __future__ import annotations

from millrace.core.event import Reported
from millrace.core.fleet import FleetView, Hold, Route, Sent
from millrace.core.request import Request
from millrace.policies.routing.vllm_prefixaware import Policy
from millrace.testing import fakes

PROMPT = tuple(range(10))


def _request(id: str = "q", blocks: tuple[int, ...] = PROMPT) -> Request:
    return fakes.request(id, blocks=blocks)


def _fleet(*loads: int) -> FleetView:
    return fakes.fleet(*(fakes.replica(f"r{n}", waiting=load) for n, load in enumerate(loads)))


def _chosen(policy: Policy, fleet: FleetView, blocks: tuple[int, ...] = PROMPT) -> set[str]:
    decisions = [policy.route(_request(f"q{n}", blocks), fleet) for n in range(40)]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def _knowing(**sent: tuple[int, ...]) -> Policy:
    policy = Policy()
    for name, blocks in sent.items():
        policy.note(Sent(0.0, _request(f"to {name}", blocks), name))
    return policy


def test_the_longest_match_wins_whatever_its_load() -> None:
    policy = _knowing(r0=PROMPT[:5], r1=PROMPT[:6])
    assert _chosen(policy, _fleet(0, 500, 0)) == {"r1"}


def test_a_single_block_is_match_enough() -> None:
    assert _chosen(_knowing(r1=PROMPT[:1]), _fleet(0, 0, 0)) == {"r1"}


def test_equal_matches_are_drawn_from_even_if_some_are_overloaded() -> None:
    assert _chosen(_knowing(r0=PROMPT, r2=PROMPT), _fleet(0, 0, 500)) == {"r0", "r2"}


def test_without_a_match_everybody_is_drawn_from() -> None:
    assert _chosen(_knowing(r0=(99,)), _fleet(0, 500, 0)) == {"r0", "r1", "r2"}
    assert _chosen(_knowing(r0=PROMPT), _fleet(0, 0, 0), ()) == {"r0", "r1", "r2"}


def test_who_is_not_able_is_passed_over_for_who_holds_less() -> None:
    policy, fleet = _knowing(r0=PROMPT[:5], r1=PROMPT), _fleet(0, 0, 0)
    fleet.replicas[1].phase = "draining"
    assert _chosen(policy, fleet) == {"r0"}


def test_published_nothing_was_ever_forgotten_but_here_a_replica_that_is_gone_is() -> None:
    policy = _knowing(r1=PROMPT)
    policy.note(Reported(1.0, "r1", "gone"))
    assert _chosen(policy, _fleet(0, 0, 0)) == {"r0", "r1", "r2"}


def test_published_the_trie_grew_without_limit_but_here_it_keeps_to_its_budget() -> None:
    policy = Policy(budget_bytes=100_000)
    for n in range(1000):
        policy.note(Sent(float(n), _request(f"q{n}", tuple(range(100 * n, 100 * n + 50))), "r1"))
    assert _chosen(policy, _fleet(0, 0), (99900, 99901)) == {"r1"}
    assert _chosen(policy, _fleet(0, 0), (0, 1)) == {"r0", "r1"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(_request(), fakes.fleet()) == Hold("no ready replica")

"""AIBrix's prefix-cache policy: most of the prompt, unless that replica is too busy to be in the sample."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.event import Reported, Ticked
from millrace.core.fleet import FleetView, Hold, Route, Sent
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.aibrix_prefix import Policy, busiest_allowed
from millrace.testing import fakes

PROMPT = tuple(range(10))


def _request(id: str = "q", blocks: tuple[int, ...] = PROMPT) -> Request:
    return fakes.request(id, blocks=blocks)


def _fleet(*loads: int) -> FleetView:
    return fakes.fleet(*(fakes.replica(f"r{n}", waiting=load) for n, load in enumerate(loads)))


def _chosen(policy: Policy, fleet: FleetView, blocks: tuple[int, ...] = PROMPT) -> set[str]:
    decisions = [policy.route(_request(f"q{n}", blocks), fleet) for n in range(40)]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def _knowing(policy: Policy | None = None, **sent: tuple[int, ...]) -> Policy:
    made = policy or Policy()
    for name, blocks in sent.items():
        made.note(Sent(0.0, _request(f"to {name}", blocks), name))
    return made


def test_golden_requests_of_2_2_and_10_allow_no_more_than_9_29() -> None:
    assert busiest_allowed((2, 2, 10), 1.0) == pytest.approx(4.667 + 4.619, abs=1e-3)


def test_golden_a_match_above_the_limit_is_skipped_for_the_next_match() -> None:
    """A spread of 8 is not over 8, so everybody is considered; but 10 requests are over 9.29."""
    assert _chosen(_knowing(r2=PROMPT, r1=PROMPT[:1]), _fleet(2, 2, 10)) == {"r1"}


def test_golden_a_match_above_the_limit_is_skipped_for_the_least_requests() -> None:
    assert _chosen(_knowing(r2=PROMPT), _fleet(2, 2, 10)) == {"r0", "r1"}


def test_the_documented_defaults_skip_nobody_there() -> None:
    readme = load("routing", "aibrix_prefix(imbalance_requests=16, deviation_factor=2)")
    assert _chosen(_knowing(readme, r2=PROMPT), _fleet(2, 2, 10)) == {"r2"}
    assert _chosen(_knowing(readme, r2=PROMPT), _fleet(2, 2, 18)) == {"r2"}
    assert _chosen(_knowing(readme, r2=PROMPT), _fleet(2, 2, 19)) == {"r0", "r1"}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9))
def test_published_nobody_is_further_above_the_mean_than_a_sample_allows(running: list[int]) -> None:
    """So the guard never binds for two replicas, nor for up to five with the documented factor of two."""
    count, mean = len(running), sum(running) / len(running)
    for factor in (1.0, 2.0):
        if factor > (count - 1) / sqrt(count):
            assert max(running) <= busiest_allowed(running, factor) + 1e-9
    assert busiest_allowed(running, 0.0) == pytest.approx(mean)


def test_published_the_guard_binds_for_six_replicas_and_a_factor_of_two() -> None:
    assert busiest_allowed((0, 0, 0, 0, 0, 9), 2.0) < 9
    assert busiest_allowed((0, 0, 0, 0, 9), 2.0) > 9


def test_out_of_balance_only_the_least_busy_are_considered() -> None:
    policy = _knowing(r2=PROMPT, r1=PROMPT[:1])
    assert _chosen(policy, _fleet(0, 0, 9)) == {"r1"}
    assert _chosen(policy, _fleet(0, 1, 9)) == {"r0"}


def test_of_equal_matches_the_least_busy_serves() -> None:
    policy = _knowing(r0=PROMPT, r1=PROMPT, r2=PROMPT)
    assert _chosen(policy, _fleet(3, 2, 2, 0)) == {"r1", "r2"}


def test_matches_are_equal_if_their_whole_percents_are() -> None:
    long = tuple(range(1000))
    policy = _knowing(r0=long[:995], r1=long[:999])
    assert _chosen(policy, _fleet(0, 1), long) == {"r0"}
    policy = _knowing(r0=long[:989], r1=long[:990])
    assert _chosen(policy, _fleet(0, 1), long) == {"r1"}


def test_a_prompt_that_nobody_holds_goes_to_the_least_busy() -> None:
    assert _chosen(_knowing(r1=PROMPT), _fleet(1, 1, 2), (99,)) == {"r0", "r1"}
    assert _chosen(_knowing(r2=PROMPT), _fleet(1, 1, 2), ()) == {"r0", "r1"}


def test_a_single_replica_serves_everything() -> None:
    assert _chosen(_knowing(r0=PROMPT), _fleet(99)) == {"r0"}


def test_a_replica_that_is_gone_or_draining_holds_nothing_for_us() -> None:
    policy, fleet = _knowing(r2=PROMPT, r1=PROMPT[:1]), _fleet(0, 1, 1)
    fleet.replicas[2].phase = "draining"
    assert _chosen(policy, fleet) == {"r1"}
    policy.note(Reported(1.0, "r1", "gone"))
    assert _chosen(policy, fleet) == {"r0"}


def test_the_table_forgets_blocks_over_its_size_and_after_twenty_minutes() -> None:
    policy = _knowing(Policy(max_blocks=15), r1=PROMPT)
    assert _chosen(policy, _fleet(0, 1)) == {"r1"}
    policy.note(Sent(1.0, _request("more", tuple(range(50, 60))), "r1"))
    assert _chosen(policy, _fleet(0, 1)) == {"r0"}
    policy.note(Ticked(1201.0))
    assert _chosen(policy, _fleet(0, 1), (50, 51)) == {"r1"}
    policy.note(Ticked(1201.5))
    assert _chosen(policy, _fleet(0, 1), (50, 51)) == {"r0"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(_request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize("factor", ["-1", "1e999"])
def test_a_factor_must_be_a_number_from_0(factor: str) -> None:
    with pytest.raises(ValueError, match=r"deviation_factor is .*; it must be a number from 0"):
        load("routing", f"aibrix_prefix(deviation_factor={factor})")

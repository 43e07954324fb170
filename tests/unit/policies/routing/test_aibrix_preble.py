"""AIBrix's Preble: who holds most of the prompt, else who owes the least work to what it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.event import Finished, Reported, Ticked
from millrace.core.fleet import FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.prefix_tree import PrefixTree
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.aibrix_preble import FRACTION, Histogram, Policy
from millrace.testing import fakes

PROMPT = tuple(range(10))
NEW = tuple(range(500, 510))


def _request(id: str = "q", blocks: tuple[int, ...] = PROMPT) -> Request:
    return fakes.request(id, blocks=blocks)


def _fleet(*names: str) -> FleetView:
    return fakes.fleet(*(fakes.replica(name) for name in names or ("r0", "r1", "r2")))


def _speedy(name: str, tokens_per_s: float | None, step_s: float | None = None) -> ReplicaView:
    return fakes.replica(name, prefill_tokens_per_s=tokens_per_s, decode_step_s=step_s)


def _chosen(policy: Policy, fleet: FleetView, blocks: tuple[int, ...] = PROMPT) -> set[str]:
    decisions = [policy.route(_request(f"q{n}", blocks), fleet) for n in range(40)]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def _send(policy: Policy, name: str, *prompts: tuple[int, ...], now_s: float = 0.0) -> Policy:
    for number, blocks in enumerate(prompts):
        policy.note(Sent(now_s, _request(f"{name}-{now_s}-{number}", blocks), name))
    return policy


def _own(start: int, size: int = 10) -> tuple[int, ...]:
    return tuple(range(1000 * start, 1000 * start + size))


def test_over_half_of_a_prompt_decides() -> None:
    policy = _send(Policy(), "r1", PROMPT[:6])
    assert _chosen(policy, _fleet()) == {"r1"}
    assert _chosen(_send(Policy(), "r1", PROMPT[:5]), _fleet()) == {"r0", "r2"}


def test_of_those_that_hold_the_longest_part_the_one_least_asked_serves() -> None:
    policy = _send(_send(Policy(), "r0", PROMPT), "r1", PROMPT, PROMPT)
    assert _chosen(policy, _fleet()) == {"r0", "r1"}  # who shares a node shares all that was asked of it
    _send(policy, "r1", NEW)
    assert _chosen(policy, _fleet()) == {"r0"}
    _send(policy, "r1", (*PROMPT, 77))
    assert _chosen(policy, _fleet(), (*PROMPT, 77)) == {"r1"}  # who alone holds the longest part


def test_who_is_not_able_is_passed_over_for_who_holds_less_or_for_the_lowest_cost() -> None:
    policy, fleet = _send(_send(Policy(), "r1", PROMPT), "r0", PROMPT[:2]), _fleet()
    fleet.replicas[1].phase = "draining"
    assert _chosen(policy, fleet) == {"r0"}
    fleet.replicas[0].phase = "draining"
    assert _chosen(policy, fleet) == {"r2"}


def test_otherwise_the_lowest_cost_serves_one_end_costs_as_much_decoding_as_another() -> None:
    policy = _send(_send(Policy(), "r0", _own(1)), "r1", _own(2), _own(3))
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0"}
    policy = _send(_send(Policy(), "r0", _own(1)), "r1", _own(2))
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0", "r1"}
    _send(policy, "r1", _own(2))  # the same again: more to compute, no more to decode
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0"}


def test_golden_cost_of_decoding_and_of_computing() -> None:
    """45 tokens at 0.15 s are 6.75 s, as 6750 tokens at 1000 per second are."""
    policy = _send(_send(Policy(), "r0", _own(1, 400)), "r1", _own(2, 1), _own(3, 1))
    equal = fakes.fleet(_speedy("r0", 1000.0, 0.15), _speedy("r1", 1000.0, 0.15))
    assert _chosen(policy, equal, NEW) == {"r0"}  # 6.4 + 6.75 s against 0.032 + 13.5 s
    slower = fakes.fleet(_speedy("r0", 900.0, 0.15), _speedy("r1", 1000.0, 0.15))
    assert _chosen(policy, slower, NEW) == {"r1"}  # 7.11 + 6.75 s against 0.032 + 13.5 s


def test_the_speeds_are_the_replicas_own_or_those_of_the_slowest_known() -> None:
    policy = _send(_send(Policy(), "r0", _own(1)), "r1", _own(2))
    assert _chosen(policy, fakes.fleet(_speedy("r0", 100.0), _speedy("r1", 200.0)), NEW) == {"r1"}
    unknown = fakes.fleet(_speedy("r0", None), _speedy("r1", 200.0), _speedy("r2", 100.0))
    assert _chosen(policy, unknown, NEW) == {"r2"}
    _send(policy, "r2", _own(3), _own(4))
    assert _chosen(policy, unknown, NEW) == {"r1"}
    steps = fakes.fleet(_speedy("r0", None, 0.1), _speedy("r1", None), _speedy("r2", None, 0.01))
    assert _chosen(policy, steps, NEW) == {"r2"}  # 0.9 s for two ends; 4.5 s for one
    assert _chosen(policy, fakes.fleet(*steps.replicas[:2]), NEW) == {"r0", "r1"}


def test_what_was_asked_before_the_window_costs_nothing() -> None:
    policy = _send(_send(Policy(), "r0", _own(1)), "r1", _own(2), now_s=100.0)
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0", "r1"}
    policy.note(Ticked(179.0))
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0", "r1"}
    policy.note(Ticked(180.0))
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0"}


def test_what_nobody_used_for_five_minutes_matches_nothing() -> None:
    policy = _send(Policy(), "r1", PROMPT)
    policy.note(Ticked(300.0))
    assert _chosen(policy, _fleet()) == {"r1"}
    policy.note(Ticked(300.5))
    assert _chosen(policy, _fleet()) == {"r0", "r1", "r2"}


def test_published_a_replaced_replica_lived_on_as_long_as_as_many_were_ready() -> None:
    """One goes and another one comes: the number of ready ones is the same, and still it is forgotten."""
    policy = _send(Policy(), "r1", PROMPT)
    policy.note(Reported(1.0, "r1", "gone"))
    policy.note(Reported(1.0, "r3", "ready"))
    policy.note(Reported(2.0, "r1", "ready"))
    assert _chosen(policy, _fleet("r0", "r1", "r3")) == {"r0", "r1", "r3"}


def test_published_the_cost_is_divided_by_models_instead_of_replicas() -> None:
    for published, chosen in ((False, {"r0"}), (True, {"r2"})):
        policy = Policy(as_published=published)
        _send(_send(policy, "r0", _own(1)), "r1", _own(1))  # each owes half of it twice, or all of it twice
        _send(policy, "r2", _own(2, 15))
        assert _chosen(policy, _fleet("r0", "r2"), NEW) == chosen


def test_a_prompt_without_blocks_goes_to_the_lowest_cost() -> None:
    policy = _send(_send(Policy(), "r0", ()), "r1", _own(1))
    assert _chosen(policy, _fleet("r0", "r1"), ()) == {"r0"}


def test_the_window_keeps_to_its_share_of_the_memory() -> None:
    policy = Policy(budget_bytes=4000)  # 4 asks
    _send(policy, "r0", _own(1, 1))
    _send(policy, "r1", *[_own(2, 1)] * 3)
    policy.note(Finished(0.0, "r1-0.0-0"))
    assert _chosen(policy, _fleet("r0", "r1"), NEW) == {"r0"}
    _send(policy, "r1", *[_own(2, 1)] * 2)
    policy.note(Finished(0.0, "r1-0.0-1"))
    assert _chosen(policy, _fleet("r0", "r1", "r2"), NEW) == {"r0", "r2"}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from([1, 2]), min_size=1, max_size=4)),
        max_size=30,
    ),
    st.booleans(),
)
def test_what_replicas_owe_is_the_sum_over_what_they_hold(
    sent: list[tuple[str, list[int]]], shared: bool
) -> None:
    histogram = Histogram(10.0, 15, shared=shared)
    tree = PrefixTree(6000, watcher=histogram)
    ends = []
    for number, (name, steps) in enumerate(sent):
        blocks = tuple(hash(tuple(steps[: k + 1])) for k in range(len(steps)))
        histogram.expire(float(number))
        node = tree.insert(_request(blocks=blocks), name, float(number))
        assert node is not None
        histogram.add(node, float(number))
        ends.append(node)
    recent = ends[-10:]
    for name in "abc":
        held = [node for node in dict.fromkeys(recent) if name in node.holders]
        assert histogram.load.get(name, 0) == sum(recent.count(node) for node in held)
        assert histogram.ends.get(name, 0) == len(held)
        work = [
            FRACTION
            * recent.count(node)
            * 16
            * len(node.blocks) ** 2
            // node.end
            // (len(node.holders) if shared else 1)
            for node in held
        ]
        assert histogram.work.get(name, 0) == pytest.approx(sum(work), abs=len(work))
        tree.forget(name)
        assert histogram.load.get(name, 0) == histogram.work.get(name, 0) == histogram.ends.get(name, 0) == 0


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(_request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("match_threshold=2", r"match_threshold is 2\.0; it is a share of a prompt"),
        ("assumed_tokens_per_s=0", r"assumed_tokens_per_s is 0\.0; it must be positive"),
        ("assumed_step_s=-1", r"assumed_step_s is -1\.0; it must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("routing", f"aibrix_preble({settings})")

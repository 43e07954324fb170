"""Policies that choose which decodes go on."""

from __future__ import annotations

import pytest

from millrace.core.batch import Grant, Plan
from millrace.core.cost import StepShape
from millrace.core.replica import Limits
from millrace.replica.executor import StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from tests.unit.replica.test_replica import LIMITS, Always, advance, ids, planned


def decoding(answers: dict[str, int], policy: Always, limits: Limits = LIMITS) -> Replica:
    """A replica in which these sequences of one prompt token decode, by the tokens of their answers."""
    replica = Replica(limits, policy)
    for name, answer in answers.items():
        replica.add(Sequence(name, 1, answer))
    policy.made = Plan(0, [Grant(name, 1) for name in answers])
    advance(replica)
    return replica


def test_a_policy_may_choose_who_decodes() -> None:
    policy = Always(Plan())
    replica = decoding({"a": 5, "b": 5, "c": 5}, policy)
    policy.made = Plan(1, [Grant("c", 1)])
    step = planned(replica)
    assert (ids(chunk.sequence for chunk in step.chunks), step.shape) == (
        ["a", "c"],
        StepShape(2, 2, emits=2),
    )
    assert ids(replica.commit(step, StepResult(1.0)).emitted) == ["a", "c"]
    assert [sequence.generated for sequence in replica.running] == [2, 1, 2]


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (Plan(3), "let 3 decodes go on, but there are 2"),
        (Plan(1, [Grant("a", 1)]), "one sequence twice"),
    ],
)
def test_a_policy_that_lets_too_many_decode_is_told_so(plan: Plan, complaint: str) -> None:
    policy = Always(Plan())
    replica = decoding({"a": 5, "b": 5}, policy)
    policy.made = plan
    with pytest.raises(ValueError, match=complaint):
        replica.plan()


def test_more_decodes_than_a_step_holds_are_an_error_of_the_policy() -> None:
    policy = Always(Plan())
    replica = decoding({"a": 5, "b": 5}, policy)
    replica.batch.step_tokens = 1
    policy.made = Plan(2)
    with pytest.raises(ValueError, match="granted 2 tokens; step_tokens allows 1"):
        replica.plan()


def test_lengths_are_those_of_the_decodes_that_go_on() -> None:
    policy = Always(Plan())
    replica = Replica(LIMITS, policy, lengths=True)
    for name, prompt in (("a", 2), ("b", 5)):
        replica.add(Sequence(name, prompt, 9))
        policy.made = Plan(0, [Grant(name, prompt)])
        advance(replica)
    found = []
    for plan in (Plan(2), Plan(1), Plan(0, [Grant("b", 1)])):
        policy.made = plan
        step = planned(replica)
        found.append((step.shape.decode_longest_tokens, step.shape.decode_shortest_tokens))
        replica.commit(step, StepResult(1.0))
    assert found == [(5, 2), (3, 3), (6, 6)]


@pytest.mark.parametrize("plan", [Plan(0, [Grant("a", 1)], ("a",)), Plan(1, (), ("w",))])
def test_only_those_who_run_and_have_no_grant_may_yield(plan: Plan) -> None:
    policy = Always(Plan())
    replica = decoding({"a": 5}, policy)
    replica.add(Sequence("w", 1, 5))
    policy.made = plan
    with pytest.raises(ValueError, match="has a grant or does not run"):
        replica.plan()


def test_who_yields_does_so_for_those_who_wait_only() -> None:
    policy = Always(Plan())
    replica = decoding({"a": 5, "b": 5}, policy)
    policy.made = Plan(1, (), ("b",))
    advance(replica)
    assert ids(replica.running) == ["a", "b"]

"""The most priority per token of work first."""

from __future__ import annotations

import pytest

from millrace.core.answer_length import LengthPrediction
from millrace.policies.queueing.wspt import Policy
from millrace.testing import fakes
from tests.unit.policies.queueing.held import hold, order, served

HELD = (
    fakes.request("long", prompt_tokens=1000),
    fakes.request("short", prompt_tokens=100),
    fakes.request("talks", prompt_tokens=100, expected_tokens=500),
    fakes.request("may talk", prompt_tokens=100, predicted=LengthPrediction(700, (0,))),
    fakes.request("dear", prompt_tokens=1000, priority=19),
    fakes.request("cheap", prompt_tokens=100, priority=-1),
)


def test_work_is_prompt_and_answer_and_priority_divides_it() -> None:
    policy = Policy()
    hold(policy, *HELD)
    want = ["dear", "short", "cheap", "talks", "may talk", "long"]
    assert order(policy, *HELD) == served(policy, *HELD) == want


def test_prompts_alone_may_count_as_in_dynamo() -> None:
    want = ["dear", "short", "talks", "may talk", "cheap", "long"]
    assert order(Policy(answer_weight=0.0), *HELD) == want


def test_a_weight_is_a_number() -> None:
    with pytest.raises(ValueError, match="answer_weight is -1"):
        Policy(answer_weight=-1.0)

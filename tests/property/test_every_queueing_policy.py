"""Whatever is held, every queueing policy in the folder keeps the rules of queueing policies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from millrace.core.event import Event
from millrace.policies import load, names
from millrace.testing import strategies
from millrace.testing.cases import Queue
from millrace.testing.checks import check_queueing_policy
from tests.property.replaying import recorded, replays


@pytest.mark.parametrize("name", names("queueing"))
@given(queue=strategies.queues())
def test_a_policy_keeps_the_rules(name: str, queue: Queue) -> None:
    check_queueing_policy(load("queueing", name), [queue])


@pytest.mark.parametrize("name", names("queueing"))
@settings(max_examples=40)
@given(history=strategies.histories())
def test_a_log_under_a_policy_replays_bit_for_bit(name: str, history: list[Event]) -> None:
    assert replays(recorded(history, queueing=name))

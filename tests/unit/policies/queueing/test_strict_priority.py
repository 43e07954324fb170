"""The highest priority first, in the order of arrival among equals."""

from __future__ import annotations

from millrace.policies.queueing.strict_priority import Policy
from millrace.testing import fakes
from tests.unit.policies.queueing.held import hold, order, served

HELD = [
    fakes.request(name, priority=priority) for name, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5))
]


def test_the_highest_priority_goes_first_and_equals_in_the_order_of_arrival() -> None:
    policy = Policy()
    hold(policy, *HELD)
    assert order(policy, *HELD) == served(policy, *HELD) == ["b", "d", "a", "c"]


def test_each_model_has_a_line_of_its_own() -> None:
    policy, other = Policy(), fakes.request("n", model="n", priority=9)
    hold(policy, *HELD, other)
    assert served(policy, *HELD) == ["b", "d", "a", "c"]
    assert served(policy, other, model="n") == ["n"]
    assert served(policy, model="unheard-of") == []

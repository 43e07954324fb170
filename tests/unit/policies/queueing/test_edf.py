"""The earliest deadline first."""

from __future__ import annotations

from millrace.core.request import Slo
from millrace.policies.queueing.edf import Policy
from millrace.testing import fakes
from tests.unit.policies.queueing.held import hold, order, served

LATE, SOON = fakes.request("late", deadline_s=9.0), fakes.request("soon", deadline_s=3.0)
PROMISED, ANY = fakes.request("promised", slo=Slo(ttft_s=2.0)), fakes.request("any")


def test_an_objective_counts_from_when_the_request_was_held() -> None:
    policy, held = Policy(), (ANY, LATE, PROMISED, SOON)
    hold(policy, *held, now_s=4.0)
    assert order(policy, *held) == served(policy, *held) == ["soon", "promised", "late", "any"]


def test_who_left_and_comes_again_has_its_objective_anew() -> None:
    policy = Policy()
    hold(policy, PROMISED)
    assert served(policy, PROMISED) == ["promised"]
    hold(policy, LATE, PROMISED, now_s=8.0)
    assert served(policy, LATE, PROMISED) == ["late", "promised"]


def test_without_deadlines_the_first_to_come_is_first() -> None:
    assert order(Policy(), fakes.request("b"), fakes.request("a"), PROMISED) == ["b", "a", "promised"]

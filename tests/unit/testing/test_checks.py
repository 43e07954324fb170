"""The checks accept policies that keep the rules, and say which rule a broken one breaks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from millrace.core.replica import Report
from millrace.policies import load
from millrace.testing import fakes
from millrace.testing.cases import Case, Queue, hashed, history_from, some_decisions, some_queues
from millrace.testing.checks import check_queueing_policy, check_routing_policy
from tests.unit.testing import broken

ROUTING = {
    broken.Blind: r"chose 'r\d'; able are: none",
    broken.Silent: "answered None, which is no Route, Hold or Reject",
    broken.Teapot: "which a log cannot hold: Invalid enum value 418",
    broken.Meddler: r"changed 'r\d', which it may only read",
    broken.FirstListed: "when shown the replicas in reverse",
    broken.Clockwork: "when asked at another hour",
    broken.Fickle: "when asked again",
    broken.Endless: "but after a log .*None",
    broken.Stubborn: r"chose 'r\d'; able are: r\d",
}
QUEUEING = {
    broken.Forgetful: "each must come exactly once",
    broken.Twice: "each must come exactly once",
    broken.Alternating: "when asked again",
}


@pytest.mark.parametrize("kind", ROUTING)
def test_a_broken_routing_policy_is_told_its_rule(kind: Any) -> None:
    with pytest.raises(AssertionError, match=ROUTING[kind]):
        check_routing_policy(kind())


@pytest.mark.parametrize("kind", QUEUEING)
def test_a_broken_queueing_policy_is_told_its_rule(kind: Any) -> None:
    with pytest.raises(AssertionError, match=QUEUEING[kind]):
        check_queueing_policy(kind())


def test_a_policy_that_is_more_than_its_settings_is_told_so() -> None:
    policy = broken.Hidden()
    policy.last = True
    with pytest.raises(AssertionError, match="when rebuilt from its settings"):
        check_routing_policy(policy)


def test_a_policy_that_is_no_dataclass_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"Bare'> is not a dataclass"):
        check_routing_policy(broken.Bare())


def test_a_complaint_shows_the_smallest_fleet_that_was_tried() -> None:
    with pytest.raises(AssertionError) as raised:
        check_routing_policy(broken.Blind())
    assert str(raised.value).count("ReplicaView(") == 1


def test_a_complaint_shows_only_what_is_not_as_usual() -> None:
    busy = fakes.replica("busy", phase="draining", waiting=2, report=Report(now_s=1.0, running=0))
    case = Case(fakes.request("q", priority=3), fakes.fleet(busy, now_s=5.0, avoid=frozenset({"x"})))
    with pytest.raises(AssertionError) as raised:
        check_routing_policy(broken.Blind(), [case])
    assert str(raised.value).splitlines() == [
        "the policy chose 'busy'; able are: none",
        "  Request(id='q', model='m', prompt_tokens=100, max_tokens=16, priority=3)",
        "  at 5.0 s, 0 routed before, to avoid: ['x']",
        "  ReplicaView(id='busy', spec=ReplicaSpec(models=('m',)), phase='draining', waiting=2, "
        "report=Report(now_s=1.0, running=0))",
    ]


def test_cases_of_your_own_can_be_checked() -> None:
    check_routing_policy(broken.Blind(), [Case(fakes.request(), fakes.fleet())])
    check_queueing_policy(broken.Forgetful(), [Queue((fakes.request("a"),), fakes.fleet())])


def test_the_cases_cover_what_policies_must_cope_with() -> None:
    cases = list(some_decisions(200))
    replicas = [replica for case in cases for replica in case.fleet.replicas]
    able = [len(case.fleet.able(case.request)) for case in cases]
    assert {0, 1, 2, 3} <= set(able)
    assert {r.spec.prefill_tokens_per_s is None for r in replicas} == {True, False}
    assert {r.report is None for r in replicas} == {True, False}
    assert {bool(r.in_flight) for r in replicas} == {True, False}
    assert any(r.prefix.matched_tokens(case.request) for case in cases for r in case.fleet.replicas)
    assert any(set(case.fleet.avoid) >= {r.id for r in case.fleet.able(case.request)} for case in cases)


def test_the_same_names_choose_the_same_cases() -> None:
    assert history_from(hashed("h"), events=50) == history_from(hashed("h"), events=50)
    assert [q.held for q in some_queues(20)] == [q.held for q in some_queues(20)]
    assert history_from(hashed("h"), events=50) != history_from(hashed("i"), events=50)


def test_the_checks_need_no_hypothesis() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import millrace.testing.checks"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shipped_policies_keep_the_rules() -> None:
    check_routing_policy(load("routing", "least_work"))
    check_queueing_policy(load("queueing", "fcfs"))

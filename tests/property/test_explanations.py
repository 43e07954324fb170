"""What a policy explains is what it does: the winner it names is the one it sends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings

from millrace.control import Controller
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Route, Sent
from millrace.core.request import Request
from millrace.core.weighed import Explanation
from millrace.policies import load, names
from millrace.testing import fakes, strategies
from millrace.testing.cases import Case
from tests.property.replaying import IMPATIENT

EXPLAINING = [name for name in names("routing") if hasattr(load("routing", name), "explain")]
EVERY_SCORER = (
    "llmd_scores(running_requests=1, load_aware=1, token_load=1, active_request=1, lora_affinity=1, "
    "context_length_aware=1, session_affinity=1, no_hit_lru=1, prefix_filter=True)"
)
SET = ["millrace(slo_ttft_s=0.3, candidates=2)", EVERY_SCORER, "dynamo_cost(request_weight=2.0)"]


@dataclass
class Frank:
    """Compares, whenever it is asked, what a policy explains with what it answers."""

    asked: Any

    def route(self, request: Request, fleet: FleetView) -> Decision:
        decision: Decision = self.asked.route(request, fleet)
        explained: Explanation = self.asked.explain(request, fleet)
        _agree(decision, explained, request, fleet)
        assert self.asked.explain(request, fleet) == explained
        assert self.asked.route(request, fleet) == decision
        return decision

    def note(self, fact: Event | Sent) -> None:
        if hasattr(self.asked, "note"):
            self.asked.note(fact)


def _agree(decision: Decision, explained: Explanation, request: Request, fleet: FleetView) -> None:
    weighed = [one.replica for one in explained.weighed]
    winners = [one.replica for one in explained.weighed if one.place == 1]
    assert {*weighed} <= {replica.id for replica in fleet.able(request)}
    assert len({*weighed}) == len(weighed)
    assert [one.place for one in explained.weighed] == sorted(one.place for one in explained.weighed)
    if isinstance(decision, Route):
        assert decision.replica in winners
    else:
        assert not weighed


@pytest.mark.parametrize("text", [*EXPLAINING, *SET])
@given(case=strategies.decisions())
def test_the_winner_that_is_explained_is_the_one_that_is_sent_to(text: str, case: Case) -> None:
    Frank(load("routing", text)).route(case.request, case.fleet)


@pytest.mark.parametrize("text", [*EXPLAINING, *SET])
@settings(max_examples=30)
@given(history=strategies.histories())
def test_so_it_is_whatever_was_learned(text: str, history: list[Event]) -> None:
    controller = Controller(Frank(load("routing", text)), load("queueing", "fcfs"), IMPATIENT)
    for event in history:
        controller.on(event)


@pytest.mark.parametrize("text", EXPLAINING)
def test_nobody_able_is_nothing_to_weigh(text: str) -> None:
    assert load("routing", text).explain(fakes.request(), fakes.fleet()).weighed == ()


@given(case=strategies.decisions())
def test_the_terms_of_least_work_add_up_to_what_it_predicts(case: Case) -> None:
    for one in load("routing", "least_work").explain(case.request, case.fleet).weighed:
        assert one.total == one.ttft_s == pytest.approx(sum(one.terms.values()))


@given(case=strategies.decisions())
def test_the_terms_of_our_policy_add_up_to_what_it_predicts(case: Case) -> None:
    for one in load("routing", "millrace").explain(case.request, case.fleet).weighed:
        own_s = [seconds for name, seconds in one.terms.items() if name != "others_s"]
        assert one.ttft_s == pytest.approx(sum(own_s))


@given(case=strategies.decisions())
def test_the_scores_of_llmd_add_up(case: Case) -> None:
    for one in load("routing", EVERY_SCORER).explain(case.request, case.fleet).weighed:
        assert one.total == pytest.approx(sum(one.terms.values()))

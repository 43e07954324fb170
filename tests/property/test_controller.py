"""Whatever happens to a fleet, in whatever order, no request is lost or doubled and the books agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.control.log import entry, header, replay
from millrace.core.event import (
    Action,
    Arrived,
    Cancelled,
    Event,
    Failed,
    Finished,
    Reported,
    Started,
    Ticked,
)
from millrace.core.replica import ReplicaSpec
from millrace.policies import load
from millrace.testing import fakes
from tests.property.ledger import Ledger
from tests.property.whole import WHOLE

MOODY = "tests.property.moody:Moody"
BUDGET = RetryBudget(ratio=0.25, reserve=2, floor_per_s=0.125)
SETTINGS = ControlSettings(max_attempts=3, max_held=3, max_hold_s=5.0, retry_budget=BUDGET)
SPECS = (
    ReplicaSpec(models=("m",)),
    ReplicaSpec(models=("m",), prefill_tokens_per_s=100.0, decode_step_s=0.5),
    ReplicaSpec(models=("m", "n"), prefill_tokens_per_s=1000.0),
    ReplicaSpec(models=("n", "o")),
    ReplicaSpec(models=("o", "p")),
    ReplicaSpec(models=()),
)

steps_s = st.sampled_from([0.0, 0.125, 1.0, 4.0])
replicas = st.sampled_from(["a", "b", "c"])
blocks = st.sampled_from([(), (1,), (1, 2, 3), (1, 2, 4), (5, 6)])


class Fleet(RuleBasedStateMachine):
    """Says anything to a controller that a shell may say, and compares two sets of books after each word."""

    routing = MOODY

    def __init__(self) -> None:
        super().__init__()
        self.controller = Controller(load("routing", self.routing), load("queueing", "fcfs"), SETTINGS)
        self.ledger = Ledger(SETTINGS, BUDGET)
        self.log = [header(self.controller)]
        self.now_s, self.arrived = 0.0, 0
        self.tell(Reported(0.0, "a", "ready", SPECS[0]))

    def tell(self, event: Event) -> list[Action]:
        actions = self.controller.on(event)
        self.log.append(entry(event, actions))
        self.ledger.note(event)
        self.ledger.follow(self.controller, event.now_s)
        for action in actions:
            self.ledger.perform(action, event.now_s)
        self.ledger.agree(self.controller, event.now_s)
        if self.routing != MOODY:
            self.ledger.nobody_waits_for_nothing()
        return actions

    def later(self, step_s: float) -> float:
        self.now_s += step_s
        return self.now_s

    @rule(
        step_s=steps_s,
        model=st.sampled_from(["m", "m", "m", "n", "absent"]),
        fallbacks=st.sampled_from([(), (), ("o",), ("o", "p"), ("absent too", "p")]),
        blocks=blocks,
        prompt_tokens=st.integers(1, 100),
        patience_s=st.sampled_from([None, None, -1.0, 0.0, 2.0, 20.0]),
    )
    def arrive(self, step_s: float, patience_s: float | None, **fields: Any) -> None:
        now_s = self.later(step_s)
        deadline_s = None if patience_s is None else now_s + patience_s
        request = fakes.request(f"q{self.arrived}", deadline_s=deadline_s, **fields)
        self.arrived += 1
        self.tell(Arrived(now_s, request))

    @rule(step_s=steps_s, id=replicas, spec=st.sampled_from(SPECS))
    def join(self, step_s: float, id: str, spec: ReplicaSpec) -> None:
        self.tell(Reported(self.later(step_s), id, "ready", spec))

    @rule(step_s=steps_s, id=replicas, phase=st.sampled_from(["ready", "starting", "draining", "gone"]))
    def change(self, step_s: float, id: str, phase: Any) -> None:
        if id in self.ledger.members:
            self.tell(Reported(self.later(step_s), id, phase))

    @rule(
        step_s=steps_s,
        news=st.sampled_from([Started, Finished, Cancelled]),
        which=st.integers(0, 99),
    )
    def hear(self, step_s: float, news: Any, which: int) -> None:
        self.tell(news(self.later(step_s), self.any_request(which)))

    @rule(step_s=steps_s, which=st.integers(0, 99), retryable=st.booleans(), down=st.booleans())
    def fail(self, step_s: float, which: int, retryable: bool, down: bool) -> None:
        request_id, now_s = self.any_request(which), self.later(step_s)
        self.tell(Failed(now_s, request_id, "broken", retryable=retryable, replica_down=down))

    @rule(step_s=steps_s)
    def tick(self, step_s: float) -> None:
        self.tell(Ticked(self.later(step_s)))

    @precondition(lambda self: self.controller.next_deadline_s() is not None)
    @rule()
    def wait_until_somebody_is_refused_or_turns_to_a_fallback(self) -> None:
        due_s = self.controller.next_deadline_s()
        assert due_s is not None
        just_before_s = (self.now_s + due_s) / 2
        assert self.tell(Ticked(just_before_s)) == []
        self.now_s = due_s
        before = self.ledger.models()
        self.tell(Ticked(due_s))
        assert self.ledger.models() != before

    def any_request(self, which: int) -> str:
        """Mostly one in flight, sometimes one that ended long ago or never arrived."""
        candidates = [*self.ledger.open, *self.ledger.open, f"q{which % (self.arrived + 1)}"]
        return candidates[which % len(candidates)]

    def teardown(self) -> None:
        found = replay(self.log)
        assert found.first_difference is None
        assert found.identical == found.actions
        for request_id in list(self.ledger.open):
            self.tell(Cancelled(self.now_s, request_id))
        assert (self.controller.state.flights, self.controller.state.held) == ({}, {})
        for view in self.controller.state.replicas.values():
            assert (view.in_flight, view.queued_tokens, view.context_tokens) == (0, 0, 0)


@pytest.mark.parametrize("routing", [*WHOLE, MOODY])
def test_no_request_is_lost_or_doubled_and_the_books_agree(routing: str) -> None:
    fleet = type("Fleet", (Fleet,), {"routing": routing})
    run_state_machine_as_test(
        fleet, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )

"""What a routing policy learned is changed by what happens, never by what it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings

from millrace.control import Controller
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Sent
from millrace.core.request import Request
from millrace.policies import load, names
from millrace.testing import fakes, strategies
from tests.property.replaying import IMPATIENT

LEARNING = [name for name in names("routing") if hasattr(load("routing", name), "note")]
PUBLISHED = ["sglang_cache_aware(dead_match_to_first=True)", "aibrix_preble(as_published=True)"]


@dataclass
class Curious:
    """Asks a policy again, and about requests that nobody sent, before it says what it answered first."""

    asked: Any

    def route(self, request: Request, fleet: FleetView) -> Decision:
        first: Decision = self.asked.route(request, fleet)
        self.asked.route(fakes.request("another", blocks=(1, 2, 9)), fleet)
        assert self.asked.route(request, fleet) == first
        return first

    def note(self, fact: Event | Sent) -> None:
        self.asked.note(fact)


@pytest.mark.parametrize("text", [*LEARNING, *PUBLISHED])
@settings(max_examples=40)
@given(history=strategies.histories())
def test_a_policy_that_learned_decides_the_same_however_often_it_is_asked(
    text: str, history: list[Event]
) -> None:
    plain, curious = load("routing", text), Curious(load("routing", text))
    one, other = (Controller(routing, load("queueing", "fcfs"), IMPATIENT) for routing in (plain, curious))
    for event in history:
        assert one.on(event) == other.on(event)

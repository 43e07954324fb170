"""Two tenants who wait all the time are served alike under the fair policies, whatever they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.control import Controller, ControlSettings, QueueSettings
from millrace.core.event import Action, Arrived, Dispatch, Finished, Reported
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes

LONGEST_PROMPT, LONGEST_ANSWER = 400, 300
QUANTUM_TOKENS = 150
Work = tuple[int, int]  # tokens of a prompt, and of its answer
work = st.tuples(st.integers(1, LONGEST_PROMPT), st.integers(0, LONGEST_ANSWER))


class Shop:
    """One replica of so many slots, and tenants of whom somebody always waits.

    `gaps` are by how much more the first tenant was served than the second, from when both waited on.
    """

    def __init__(self, policy: str, slots: int, asked: dict[str, list[Work]], answer_weight: float) -> None:
        queue = ControlSettings(max_held=10_000, max_hold_s=1e6, max_waiting=slots, queue=QueueSettings())
        self.controller = Controller(load("routing", "least_work"), load("queueing", policy), queue)
        self.asked = asked
        self.requests: dict[str, tuple[Request, int]] = {}
        self.under_way: list[str] = []
        self.served = dict.fromkeys(asked, 0.0)
        self.gaps: list[float] = []
        self._answer_weight, self._number = answer_weight, 0

    def play(self, ends: Iterator[int]) -> None:
        """Let everybody come, and answers end in any order, as long as both have somebody waiting."""
        self._do([Reported(0.0, "a", "ready", ReplicaSpec(models=("m",)))])
        self._ask("warm-up", 1, 0)
        for tenant, all_ in self.asked.items():
            for prompt_tokens, answer_tokens in all_:
                self._ask(tenant, prompt_tokens, answer_tokens)
        while self._both_wait() and self.under_way:
            name = self.under_way.pop(next(ends) % len(self.under_way))
            request, tokens = self.requests[name]
            if request.tenant in self.served:
                self.served[request.tenant] += self._answer_weight * tokens
            self._do([Finished(1.0, name, request.prompt_tokens, tokens)])
            if self._both_wait():
                first, second = self.served.values()
                self.gaps.append(first - second)

    def widest(self) -> float:
        """By how much the service of one tenant grew more than the other's, over any stretch of time."""
        lowest = highest = self.gaps[0] if self.gaps else 0.0
        widest = 0.0
        for gap in self.gaps:
            lowest, highest = min(lowest, gap), max(highest, gap)
            widest = max(widest, gap - lowest, highest - gap)
        return widest

    def _ask(self, tenant: str, prompt_tokens: int, answer_tokens: int) -> None:
        self._number += 1
        name = f"{tenant}-{self._number}"
        request = fakes.request(name, prompt_tokens=prompt_tokens, max_tokens=LONGEST_ANSWER, tenant=tenant)
        self.requests[name] = request, answer_tokens
        self._do([Arrived(0.0, request)])

    def _both_wait(self) -> bool:
        held = self.controller.state.held.get("m")
        return held is not None and len({flight.request.tenant for flight in held.values()}) == 2

    def _do(self, events: list[Any]) -> None:
        for event in events:
            for action in self.controller.on(event):
                self._send(action)

    def _send(self, action: Action) -> None:
        assert isinstance(action, Dispatch), action
        request, _ = self.requests[action.request_id]
        self.under_way.append(action.request_id)
        if request.tenant in self.served:
            self.served[request.tenant] += request.prompt_tokens


@pytest.mark.parametrize("slots", [1, 4])
@settings(max_examples=60)
@given(
    first=st.lists(work, min_size=1, max_size=40),
    second=st.lists(work, min_size=1, max_size=40),
    ends=st.lists(st.integers(0, 3), min_size=81, max_size=81),
)
def test_virtual_token_counters_keep_the_published_bound(
    slots: int, first: list[Work], second: list[Work], ends: list[int]
) -> None:
    shop = Shop("vtc", slots, {"f": first, "g": second}, answer_weight=2.0)
    shop.play(iter(ends))
    under_way = slots * (LONGEST_PROMPT + 2 * LONGEST_ANSWER)
    published = max(LONGEST_PROMPT, 2 * slots * (LONGEST_PROMPT + LONGEST_ANSWER))
    assert shop.widest() <= 2 * under_way <= 2 * published


@settings(max_examples=100)
@given(
    first=st.lists(work, min_size=1, max_size=40),
    second=st.lists(work, min_size=1, max_size=40),
    ends=st.lists(st.integers(0, 3), min_size=81, max_size=81),
)
def test_deficit_round_robin_keeps_the_published_bound(
    first: list[Work], second: list[Work], ends: list[int]
) -> None:
    shop = Shop(f"drr(quantum_tokens={QUANTUM_TOKENS})", 3, {"f": first, "g": second}, answer_weight=0.0)
    shop.play(iter(ends))
    assert shop.widest() <= QUANTUM_TOKENS + 2 * LONGEST_PROMPT


@pytest.mark.parametrize(
    ("policy", "answer_weight"),
    [("vtc(weights={'f': 3.0})", 2.0), (f"drr(quantum_tokens={QUANTUM_TOKENS}, weights={{'f': 3.0}})", 0.0)],
)
def test_a_weight_is_a_share(policy: str, answer_weight: float) -> None:
    asked: list[Work] = [(50 + 7 * n % 90, 20 + 11 * n % 60) for n in range(400)]
    shop = Shop(policy, 2, {"f": asked, "g": asked}, answer_weight)
    shop.play(iter([0] * 1000))
    assert shop.served["f"] / shop.served["g"] == pytest.approx(3.0, rel=0.05)


def test_first_come_first_served_is_not_fair() -> None:
    shop = Shop("fcfs", 1, {"f": [(400, 300)] * 30, "g": [(1, 1)] * 30}, answer_weight=2.0)
    shop.play(iter([0] * 100))
    assert shop.widest() > 2 * 2 * (LONGEST_PROMPT + LONGEST_ANSWER)


@pytest.mark.parametrize(("policy", "before"), [("vtc", 1), ("drr(quantum_tokens=10)", 1), ("fcfs", 50)])
def test_a_flood_that_is_old_already_does_not_get_ahead_of_who_just_came(policy: str, before: int) -> None:
    shop = Shop(policy, 1, {"f": [(10, 10)] * 50, "g": []}, answer_weight=0.0)
    shop.play(iter([]))
    late = fakes.request("late", prompt_tokens=10, tenant="g")
    shop.controller.on(Arrived(1000.0, late))
    sent = [shop.under_way.pop()]
    while sent[-1] != "late":
        sent += [
            action.request_id
            for action in shop.controller.on(Finished(1000.0, sent[-1], 10, 10))
            if isinstance(action, Dispatch)
        ]
    assert len(sent) - 2 == before

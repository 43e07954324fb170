"""Whatever comes, and however unfair a policy is: limits, floors and the bound on starvation hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from benchmarks.queue_day import play
from millrace.control import Band, Controller, ControlSettings, QueueSettings
from millrace.control.log import entry, header, replay
from millrace.core.draw import draw
from millrace.core.event import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.fleet import FleetView, QueueingPolicy
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.testing import fakes

SPEC = ReplicaSpec(models=("m",), limits=Limits(sequences=1))
SHARES = {0: 0.25, 10: 0.5}


@dataclass(frozen=True, slots=True)
class Newest:
    """Last come, first served."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return list(held)[::-1]


@dataclass(frozen=True, slots=True)
class Whim:
    """Any order, by a draw for every moment."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda one: draw(one.id, fleet.now_s))


@dataclass(frozen=True, slots=True)
class Snob:
    """Only ever the highest priority, and nobody of none."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return [one for one in sorted(held, key=lambda one: -one.priority) if one.priority > 0]


POLICIES: tuple[QueueingPolicy, ...] = (Newest(), Whim(), Snob(), load("queueing", "fcfs"))


class Step(Struct, frozen=True):
    """Something happens, so many eighths of a second after the last."""

    kind: str
    eighths: int
    which: int
    tenant: str
    priority: int
    patience_s: float | None


steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["arrive"] * 5 + ["finish"] * 2 + ["fail", "cancel", "tick"]),
        eighths=st.integers(0, 12),
        which=st.integers(0, 99),
        tenant=st.sampled_from("tuv"),
        priority=st.sampled_from([-3, 0, 5, 10, 12]),
        patience_s=st.sampled_from([None, None, 1.0]),
    ),
    min_size=20,
    max_size=70,
)
rules = st.builds(
    QueueSettings,
    bands=st.sampled_from(
        [
            (),
            (Band(priority=0, reserved=1), Band(priority=10, reserved=2, max_held=3)),
            (Band(priority=0, share=SHARES[0]), Band(priority=10, share=SHARES[10], max_hold_s=4.0)),
        ]
    ),
    max_held_per_tenant=st.sampled_from([None, 2]),
    starvation_s=st.sampled_from([None, 0.0, 2.5]),
    engine_queue=st.just(0),
)


class Auditor:
    """Plays an impatient shell of two replicas, and keeps books of its own on who is held."""

    def __init__(self, policy: QueueingPolicy, asked: QueueSettings) -> None:
        self.settings = ControlSettings(max_held=5, max_hold_s=6.0, queue=asked)
        self.rules = asked
        self.controller = Controller(load("routing", "round_robin"), policy, self.settings)
        self.log = [header(self.controller)]
        self.arrived_s: dict[str, float] = {}
        self.asked: dict[str, Request] = {}
        self.held: dict[str, None] = {}
        self.running: dict[str, None] = {}
        self.retried: set[str] = set()
        self.ends: Counter[str] = Counter()
        for name in "ab":
            self.tell(Reported(0.0, name, "ready", SPEC))

    def play(self, story: list[Step]) -> None:
        now_s = 0.0
        for number, step in enumerate(story):
            now_s += step.eighths / 8
            due_s = self.controller.next_deadline_s()
            while due_s is not None and due_s <= now_s:
                self.tell(Ticked(due_s))
                due_s = self.controller.next_deadline_s()
            self.happen(step, f"q{number}", now_s)
        for name in [*self.running, *self.held]:
            self.tell(Cancelled(now_s, name))

    def happen(self, step: Step, name: str, now_s: float) -> None:
        if step.kind == "arrive":
            deadline_s = None if step.patience_s is None else now_s + step.patience_s
            fields = {"tenant": step.tenant, "priority": step.priority, "deadline_s": deadline_s}
            self.tell(Arrived(now_s, fakes.request(name, **fields)))
        elif step.kind == "tick":
            self.tell(Ticked(now_s))
        elif step.kind == "cancel" and self.asked:
            self.tell(Cancelled(now_s, [*self.asked][step.which % len(self.asked)]))
        elif self.running:
            chosen = [*self.running][step.which % len(self.running)]
            if step.kind == "finish":
                self.tell(Started(now_s, chosen))
                self.tell(Finished(now_s, chosen))
            elif step.kind == "fail":
                self.tell(Failed(now_s, chosen, "broken"))

    def tell(self, event: Event) -> None:
        before = dict(self.held)
        actions = self.controller.on(event)
        self.log.append(entry(event, actions))
        self.note(event)
        for action in actions:
            self.perform(action, event.now_s, before)
        self.check_limits()

    def note(self, event: Event) -> None:
        if isinstance(event, Arrived):
            name = event.request.id
            self.asked[name], self.arrived_s[name] = event.request, event.now_s
            self.held[name] = None
        elif isinstance(event, Finished):
            self.over(event.request_id, "finished")
        elif isinstance(event, Failed):
            del self.running[event.request_id]
            self.held[event.request_id] = None
            self.retried.add(event.request_id)
        elif isinstance(event, Cancelled) and event.request_id in self.held:
            self.over(event.request_id, "cancelled")

    def over(self, name: str, how: str) -> None:
        self.held.pop(name, None)
        self.running.pop(name, None)
        if self.asked.pop(name, None) is not None:
            self.ends[how] += 1

    def perform(self, action: Action, now_s: float, before: dict[str, None]) -> None:
        if isinstance(action, Refuse):
            assert action.reason or action.status == 502
            self.check_floor(action, before)
            self.over(action.request_id, "refused")
        elif isinstance(action, Cancel):
            self.over(action.request_id, "cancelled")
        elif isinstance(action, Dispatch):
            self.check_turn(action.request_id, now_s)
            del self.held[action.request_id]
            self.running[action.request_id] = None

    def check_turn(self, name: str, now_s: float) -> None:
        """Who was there for long enough before this one came is not overtaken."""
        for other in self.held:
            if self.rules.starvation_s is not None and self.arrived_s[other] < self.arrived_s[name]:
                assert now_s - self.arrived_s[other] < self.rules.starvation_s

    def check_floor(self, action: Refuse, before: dict[str, None]) -> None:
        """Nobody is refused for a full queue while a place of its own band is free."""
        if action.reason == "rejected-capacity" and self.rules.bands:
            band = self.controller.state.held.band_of(self.asked[action.request_id])
            held = [n for n in before if self.controller.state.held.band_of(self.asked[n]) == band]
            assert len(held) >= self.controller.state.held.bands[band].reserved

    def check_limits(self) -> None:
        """Those that did not come back from a replica are as many as may be, by every count."""
        fresh = [self.asked[name] for name in self.held if name not in self.retried]
        assert len(fresh) <= self.settings.max_held
        most = self.rules.max_held_per_tenant
        assert most is None or max(Counter(one.tenant for one in fresh).values(), default=0) <= most
        for place, band in enumerate(self.rules.bands):
            held = sum(self.controller.state.held.band_of(one) == place for one in fresh)
            assert band.max_held is None or held <= band.max_held
        told = [(one.tenant, one.held) for one in self.controller.waiting(0.0)]
        assert sum(held for _, held in told) == len(self.held)


@settings(max_examples=80, deadline=None)
@given(story=steps, asked=rules, policy=st.sampled_from(POLICIES))
def test_the_rules_of_the_queue_hold_under_any_policy(
    story: list[Step], asked: QueueSettings, policy: QueueingPolicy
) -> None:
    auditor = Auditor(policy, asked)
    auditor.play(story)
    assert sum(auditor.ends.values()) == sum(step.kind == "arrive" for step in story)
    assert (auditor.controller.state.held, auditor.controller.state.flights) == ({}, {})
    found = replay(auditor.log)
    assert found.first_difference is None
    assert found.identical == found.actions


@settings(max_examples=60, deadline=None)
@given(
    priorities=st.lists(st.sampled_from([0, 10, 20]), min_size=20, max_size=80),
    policy=st.sampled_from(POLICIES),
)
def test_a_band_gets_its_share_of_any_stretch_in_which_some_of_it_wait(
    priorities: list[int], policy: QueueingPolicy
) -> None:
    bands = (*(Band(priority=p, share=share) for p, share in SHARES.items()), Band(priority=20))
    asked = QueueSettings(bands=bands, starvation_s=None, engine_queue=0)
    controller = Controller(
        load("routing", "round_robin"), policy, ControlSettings(queue=asked, max_hold_s=1e6)
    )
    controller.on(Reported(0.0, "a", "ready", SPEC))
    for number, priority in enumerate(priorities):
        controller.on(Arrived(0.0, fakes.request(f"q{number}", priority=priority)))
    waiting, shares = Counter(priorities[1:]), Counter[int]()
    running, total = "q0" if controller.state.flights["q0"].replica else "", 0
    while running:
        actions = controller.on(Finished(1.0 + total, running))
        running = next((one.request_id for one in actions if isinstance(one, Dispatch)), "")
        if running:
            total += 1
            shares[priorities[int(running[1:])]] += 1
            waiting[priorities[int(running[1:])]] -= 1
            for priority, share in SHARES.items():
                assert not waiting[priority] or shares[priority] >= share * total - len(bands)


@pytest.mark.parametrize("hours", [0.4])
def test_bursts_with_priorities_break_no_rule_and_the_sums_add_up(hours: float) -> None:
    found = play(hours)
    assert found["adds_up"]
    assert found["broken"] == {}
    assert found["most_held"] == 300
    assert 10.0 < found["longest_overtaken_s"] < 15.0
    assert min(found["admitted"], found["expired"], *found["refused"].values()) > 0

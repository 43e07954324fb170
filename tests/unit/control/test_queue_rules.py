"""Rules of the queue that hold under every policy: who has a place, who is next, what the refused hear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from millrace.control import Band, Controller, QueueSettings
from millrace.core.event import Action, Cancelled, Dispatch, Event, Failed, Finished, Refuse, Reported, Ticked
from millrace.core.fleet import FleetView, Held, Left, QueueingPolicy, Sent
from millrace.core.ranked import Ranked
from millrace.core.request import Request
from millrace.testing.checks import check_queueing_policy
from tests.unit.control.scripted import Capped, Sheds, Shy, arrive, controller_of, join

LOW, HIGH = Band(priority=0), Band(priority=10)


@dataclass(frozen=True)
class Newest:
    """Last come, first served: whoever waits is overtaken for ever."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return list(held)[::-1]


@dataclass
class Shortest:
    """Keeps the shortest prompt at hand, in a heap for each model."""

    heard: list[Any] = field(default_factory=list, init=False)
    _ranked: dict[str, Ranked] = field(default_factory=dict, init=False)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=lambda one: one.prompt_tokens)

    def first(self, model: str, fleet: FleetView) -> str | None:
        return self._ranked[model].first() if model in self._ranked else None

    def note(self, fact: Event | Sent | Held | Left) -> None:
        if isinstance(fact, Held):
            ranked = self._ranked.setdefault(fact.request.model, Ranked())
            ranked.put(fact.request.id, (fact.request.prompt_tokens, fact.number))
        elif isinstance(fact, Left):
            self._ranked[fact.request.model].discard(fact.request.id)
        if isinstance(fact, Held | Left | Sent):
            self.heard.append((type(fact).__name__, fact.request.id))


def full(*, queueing: QueueingPolicy | None = None, max_held: int = 100, **rules: Any) -> Controller:
    """Return a controller of one replica that takes one request at a time, and has one."""
    settings: dict[str, Any] = {"max_held": max_held, "max_hold_s": 1000.0, "queue": QueueSettings(**rules)}
    made = controller_of("a", routing=Capped(), queueing=queueing, **settings)
    arrive(made, "first")
    return made


def free(controller: Controller, now_s: float) -> str:
    """Let the replica finish what it has, and return what it is sent next."""
    running = next(name for name, flight in controller.state.flights.items() if flight.replica)
    (sent,) = controller.on(Finished(now_s, running))
    assert isinstance(sent, Dispatch)
    return sent.request_id


def reason(actions: list[Action]) -> tuple[int, Any]:
    (refuse,) = actions
    assert isinstance(refuse, Refuse)
    assert (refuse.retry_after_s is None) == (refuse.status == 504)
    return refuse.status, refuse.reason


def test_a_full_queue_says_what_it_is_full_of() -> None:
    bands = (LOW, Band(priority=10, max_held=2))
    controller = full(max_held=4, max_held_per_tenant=1, bands=bands)
    assert arrive(controller, "t0", tenant="t", priority=3) == []
    assert reason(arrive(controller, "t1", tenant="t")) == (429, "rejected-capacity-tenant")
    assert arrive(controller, "u0", tenant="u", priority=10) == []
    assert arrive(controller, "v0", tenant="v", priority=11) == []
    assert reason(arrive(controller, "w0", tenant="w", priority=99)) == (429, "rejected-capacity-priority")
    assert arrive(controller, "x0", tenant="x", priority=-5) == []
    assert reason(arrive(controller, "y0", tenant="y")) == (429, "rejected-capacity")
    controller.on(Cancelled(1.0, "t0"))
    assert arrive(controller, "t2", 1.0, tenant="t") == []


def test_reserved_places_are_taken_by_nobody_else() -> None:
    controller = full(max_held=3, bands=(LOW, Band(priority=10, reserved=2)))
    assert arrive(controller, "low0") == []
    assert reason(arrive(controller, "low1")) == (429, "rejected-capacity")
    assert [arrive(controller, f"high{n}", priority=10) for n in range(2)] == [[], []]
    assert reason(arrive(controller, "high2", priority=10)) == (429, "rejected-capacity")


def test_nobody_is_overtaken_once_it_has_been_there_for_long_enough() -> None:
    controller = full(queueing=Newest(), starvation_s=10.0)
    arrive(controller, "old", 0.0)
    for n in range(1, 9):
        arrive(controller, f"new{n}", float(n))
    assert free(controller, 9.875) == "new8"
    assert free(controller, 10.0) == "old"
    assert free(controller, 11.0) == "new1"
    assert free(controller, 11.5) == "new7"


def test_who_would_starve_is_sent_even_if_the_policy_puts_nobody_forward() -> None:
    controller = controller_of("a", queueing=Shy(), queue=QueueSettings(starvation_s=5.0))
    assert arrive(controller, "q") == []
    assert controller.on(Ticked(4.0)) == controller.on(Reported(4.0, "a", "ready")) == []
    assert controller.on(Reported(5.0, "a", "ready")) == [Dispatch("q", "a")]


def test_without_rules_the_policy_alone_decides() -> None:
    controller = controller_of("a", routing=Capped(), queueing=Newest(), max_hold_s=1000.0)
    for n in range(3):
        arrive(controller, f"q{n}", float(n))
    assert free(controller, 900.0) == "q2"


def test_a_band_gets_its_share_of_what_is_sent_whatever_the_policy_says() -> None:
    bands = (Band(priority=0, share=0.25), HIGH)
    controller = full(queueing=Newest(), starvation_s=None, bands=bands)
    for n in range(20):
        arrive(controller, f"low{n}")
    for n in range(20):
        arrive(controller, f"high{n}", priority=10)
    sent = [free(controller, 1.0 + n) for n in range(12)]
    assert [name for name in sent if "low" in name] == ["low0", "low1"]
    assert [n for n, name in enumerate(sent) if "low" in name] == [4, 8]


def test_a_band_that_has_nobody_waiting_saves_up_nothing() -> None:
    bands = (Band(priority=0, share=0.5), HIGH)
    controller = full(queueing=Newest(), starvation_s=None, bands=bands)
    for n in range(20):
        arrive(controller, f"high{n}", priority=10)
    assert all("high" in free(controller, 1.0 + n) for n in range(10))
    arrive(controller, "low0", 11.0)
    arrive(controller, "low1", 11.0)
    for n in range(20, 26):
        arrive(controller, f"high{n}", 11.0, priority=10)
    assert [free(controller, 12.0 + n)[0] for n in range(5)] == ["h", "h", "l", "h", "l"]


def test_models_on_one_replica_take_turns_by_who_waits_longest() -> None:
    controller = controller_of(routing=Capped(), queue=QueueSettings())
    join(controller, "a", "ready", "m", "n")
    arrive(controller, "q0")
    arrive(controller, "m0")
    arrive(controller, "n0", model="n")
    assert free(controller, 1.0) == "m0"
    arrive(controller, "m1", 1.0)
    assert free(controller, 2.0) == "n0"


def test_each_band_has_a_patience_of_its_own() -> None:
    bands = (LOW, Band(priority=10, max_hold_s=2.0))
    controller = full(bands=bands)
    arrive(controller, "low")
    arrive(controller, "high", priority=10)
    assert controller.next_deadline_s() == 2.0
    assert reason(controller.on(Ticked(2.0))) == (503, "rejected-ttl-expired")
    assert controller.next_deadline_s() == 1000.0


def test_who_expires_hears_whether_there_was_anybody_to_answer() -> None:
    controller = full(bands=(Band(priority=0, max_hold_s=2.0),))
    arrive(controller, "q0")
    arrive(controller, "q1", deadline_s=1.0)
    assert reason(controller.on(Ticked(1.0))) == (504, "rejected-deadline")
    controller.on(Failed(1.5, "first", "gone", retryable=False, replica_down=True))
    assert reason(controller.on(Ticked(2.0))) == (503, "rejected-no-endpoints")


def test_what_a_policy_rejects_has_a_reason_too() -> None:
    controller = controller_of("a", routing=Sheds(), queue=QueueSettings())
    assert arrive(controller, "q") == [Refuse("q", "over budget", 429, reason="rejected-other")]


def test_a_client_is_told_how_fast_the_queue_itself_drains() -> None:
    controller = full(max_held=11)
    for n in range(11):
        arrive(controller, f"q{n}")
    refused = arrive(controller, "early", 1.0)[0]
    assert isinstance(refused, Refuse)
    assert refused.retry_after_s == 120.0  # nothing is known of the rate: the longest hold, cut short
    for n in range(8):
        free(controller, 2.0 + 2 * n)
    for n in range(8):
        arrive(controller, f"r{n}", 16.0)
    refused = arrive(controller, "late", 16.0)[0]
    assert isinstance(refused, Refuse)
    assert refused.retry_after_s == 12 * 16.0 / 8


def test_a_policy_that_keeps_its_order_hears_who_comes_and_goes_and_names_who_is_next() -> None:
    check_queueing_policy(Shortest())
    policy = Shortest()
    controller = full(queueing=policy)
    for n, tokens in enumerate((300, 200, 100)):
        arrive(controller, f"q{n}", prompt_tokens=tokens)
    controller.on(Cancelled(0.5, "q2"))
    assert [free(controller, 1.0), free(controller, 2.0)] == ["q1", "q0"]
    assert policy.heard == [
        ("Sent", "first"),
        *[("Held", f"q{n}") for n in range(3)],
        ("Left", "q2"),
        *[(what, name) for name in ("q1", "q0") for what in ("Left", "Sent")],
    ]


@dataclass
class Forgetful(Shortest):
    """Goes on naming one that left."""

    def first(self, model: str, fleet: FleetView) -> str | None:
        return "q0"


def test_a_policy_that_puts_forward_who_is_not_held_is_told_so() -> None:
    controller = full(queueing=Forgetful())
    arrive(controller, "alone")
    with pytest.raises(ValueError, match="test_queue_rules puts 'q0' forward, which is not held for 'm'"):
        arrive(controller, "q1")


def test_those_who_come_back_are_sorted_in_by_their_arrival() -> None:
    controller = full()
    for n in range(3):
        arrive(controller, f"q{n}", float(n))
    back = controller.on(Failed(3.0, "first", "broken"))
    assert back == [Dispatch("first", "a", 2)]
    assert list(controller.state.held["m"]) == ["q0", "q1", "q2"]
    controller.on(Failed(4.0, "first", "broken", replica_down=True))
    assert list(controller.state.held["m"]) == ["first", "q0", "q1", "q2"]

"""A replica drains: who is told to leave it, how that is booked, and when it is asked again."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from millrace.control import Controller
from millrace.control.log import controller_of as rebuilt
from millrace.control.log import entry, header, read_entry, read_header
from millrace.core.event import (
    Action,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Move,
    Moved,
    Reported,
    Started,
    Ticked,
)
from millrace.core.replica import ReplicaSpec
from millrace.core.ways import Assumed
from tests.unit.control.scripted import Insists, Picky, arrive, controller_of, counts, join
from tests.unit.control.test_handing_over import SPLITS

CACHE: dict[str, Any] = {"kv_format": "f", "kv_bytes_per_token": 1000.0}


def fleet(*names: str, routing: Any = None, assumed: Assumed | None = None, **said: Any) -> Controller:
    """Replicas that know their speed; everything is sent to the first."""
    made = controller_of(routing=routing or Insists(names[0]), leaving=assumed or Assumed())
    for name in names:
        spec = ReplicaSpec(models=("m",), prefill_tokens_per_s=1000.0, decode_step_s=1.0, **said)
        made.on(Reported(0.0, name, "ready", spec))
    return made


def running(controller: Controller, *names: str) -> None:
    for name in names:
        arrive(controller, name)
        controller.on(Started(0.5, name))


def drain(controller: Controller, replica: str = "a", now_s: float = 1.0) -> list[Action]:
    return controller.on(Reported(now_s, replica, "draining"))


def summary(actions: list[Action]) -> list[tuple[str, str, bool, bool]]:
    assert all(isinstance(action, Move) for action in actions)
    moves = [action for action in actions if isinstance(action, Move)]
    return [(one.request_id, one.replica, one.running, one.replayed) for one in moves]


def test_unless_it_is_wanted_everybody_stays() -> None:
    controller = controller_of("a", "b", routing=Insists("a"))
    running(controller, "q")
    assert drain(controller) == []
    assert controller.next_deadline_s() is None


def test_a_cache_moves_and_the_action_tells_the_seconds_of_every_way() -> None:
    controller = fleet("a", "b", **CACHE)
    running(controller, "q")
    actions = drain(controller)
    assert summary(actions) == [("q", "b", True, False)]
    (move,) = actions
    assert isinstance(move, Move)
    assert move.reasons is not UNSET
    assert move.reasons.why == "move"
    terms = {one.replica: one.terms.keys() for one in move.reasons.weighed}
    assert terms == {"b": {"move", "replay"}, "a": {"stay"}}
    assert read_entry(entry(Ticked(1.0), actions), 2).actions == actions
    assert controller.state.replicas["b"].coming_tokens == 100
    assert controller.on(Moved(1.5, "q", "b")) == []
    assert counts(controller, "b") == (0, 1, 0, 100)
    assert controller.on(Ticked(2.0)) == []
    assert controller.next_deadline_s() is None


def test_who_is_computed_again_goes_where_it_was_told_and_uses_up_no_attempt() -> None:
    controller = fleet("a", "b", "c")
    running(controller, "q")
    assert summary(drain(controller)) == [("q", "b", True, True)]
    assert controller.on(Failed(1.1, "q", "left", resume_tokens=7)) == [
        Dispatch("q", "b", 2, resume_tokens=7)
    ]
    flight = controller.state.flights["q"]
    assert (flight.request.prompt_tokens, flight.allowed, flight.moving_to) == (107, 4, None)
    assert counts(controller, "a") == (0, 0, 0, 0)
    assert controller.state.replicas["b"].coming_tokens == 0


def test_if_that_is_gone_meanwhile_it_is_placed_like_any_other() -> None:
    controller = fleet("a", "b", "c", routing="round_robin")
    running(controller, "q")
    assert summary(drain(controller)) == [("q", "b", True, True)]
    controller.on(Reported(1.05, "b", "gone"))
    (sent,) = controller.on(Failed(1.1, "q", "left", resume_tokens=7))
    assert isinstance(sent, Dispatch)
    assert sent.replica == "c"


def test_one_that_died_of_it_fails_if_nothing_can_go_on() -> None:
    controller = fleet("a", "b")
    running(controller, "q")
    drain(controller)
    assert controller.on(Failed(1.1, "q", "broke")) == []
    assert not controller.state.flights


def test_a_way_that_came_to_nothing_is_not_tried_again() -> None:
    controller = fleet("a", "b", **CACHE)
    running(controller, "q")
    assert summary(drain(controller)) == [("q", "b", True, False)]
    assert controller.on(Moved(1.2, "q", "a")) == []
    assert summary(controller.on(Ticked(2.0))) == [("q", "b", True, True)]
    controller.on(Moved(2.2, "q", "a"))
    assert controller.on(Ticked(3.0)) == []
    assert controller.next_deadline_s() == 4.0


def test_who_waits_is_sent_elsewhere_at_once() -> None:
    controller = fleet("a", "b")
    for n in range(2):
        arrive(controller, f"q{n}", 0.1 * n, prompt_tokens=3000)
    assert summary(drain(controller, now_s=0.5)) == [("q1", "b", False, False)]
    assert counts(controller, "b") == (1, 0, 3000, 0)


def test_those_that_move_wait_for_each_other_on_the_link() -> None:
    controller = fleet("a", "b", assumed=Assumed(link_bytes_per_s=1e6), **CACHE)
    names = [f"q{n}" for n in range(4)]
    running(controller, *names)
    # A cache takes about 0.1 s, and all in front of it; computing it again 0.1 s, and all that does so too.
    assert {one[3] for one in summary(drain(controller))} == {False, True}


def test_only_so_many_are_looked_at_at_once_and_the_others_soon_after() -> None:
    controller = fleet("a", "b", assumed=Assumed(link_bytes_per_s=1e12), **CACHE)
    running(controller, *(f"q{n:02}" for n in range(20)))
    assert len(drain(controller)) == 16
    due_s = controller.next_deadline_s()
    assert due_s == pytest.approx(1.001)
    controller.on(Finished(1.0005, "q16"))
    left = controller.on(Ticked(1.001))
    assert [one[0] for one in summary(left)] == ["q17", "q18", "q19"]
    assert controller.next_deadline_s() == pytest.approx(2.001)


def test_caches_that_are_on_their_way_already_are_in_front() -> None:
    controller = fleet("a", "b", assumed=Assumed(link_bytes_per_s=1e4, prefill_tokens_per_s=1.0), **CACHE)
    running(controller, "q0", "q1")
    controller.state.set_out(controller.state.flights["q0"], "b")
    (move,) = drain(controller)
    assert isinstance(move, Move)
    assert move.reasons is not UNSET
    (there,) = (one for one in move.reasons.weighed if one.replica == "b")
    assert there.terms["move"] == pytest.approx(0.01 + 2 * 10.1)  # of 101 tokens each


def test_while_it_drains_it_is_asked_again_only_every_period() -> None:
    controller = fleet("a")
    running(controller, "q")
    assert drain(controller) == []
    assert controller.next_deadline_s() == 2.0
    join(controller, "b")
    assert drain(controller, now_s=1.5) == []
    assert summary(controller.on(Ticked(2.0))) == [("q", "b", True, True)]


def test_whose_prompt_is_computed_elsewhere_stays_and_so_does_who_ended() -> None:
    controller = fleet("d", "e", routing=SPLITS)
    controller.on(Reported(0.0, "p", "ready", ReplicaSpec(models=("m",), role="prefill")))
    arrive(controller, "q")
    assert drain(controller, "d") == []


def test_where_as_many_wait_as_may_nobody_goes() -> None:
    controller = controller_of("a", "b", routing=Insists("a"), leaving=Assumed(), max_waiting=1)
    running(controller, "q")
    controller.routing = controller._placer.routing = Insists("b")
    arrive(controller, "w")
    assert drain(controller) == []
    controller.on(Started(1.5, "w"))
    assert summary(controller.on(Ticked(2.0))) == [("q", "b", True, True)]


def test_where_as_many_are_as_may_nobody_goes_nor_two_where_one_may() -> None:
    controller = fleet("a", "b", routing=Insists("a"))
    running(controller, "q0", "q1")
    limited = replace(controller.settings, max_in_flight=1)
    controller.settings = controller.state.settings = limited
    assert summary(drain(controller)) == [("q0", "b", True, True)]
    controller.on(Failed(1.1, "q0", "left", resume_tokens=7))
    assert controller.on(Ticked(2.0)) == []


def test_the_next_deadline_is_the_first_of_all() -> None:
    controller = fleet("a", "b", routing=Picky(), assumed=Assumed(period_s=60.0))
    running(controller, "q")
    arrive(controller, "held", prompt_tokens=101)
    controller.state.flights["q"].failed = frozenset(("replay",))
    assert controller.next_deadline_s() == 30.0
    drain(controller)
    assert controller.next_deadline_s() == 30.0
    controller.on(Ticked(30.0))
    assert controller.next_deadline_s() == 61.0


@pytest.mark.parametrize(
    "end", [Finished(1.5, "q"), Cancelled(1.5, "q"), Failed(1.5, "q", "broke", retryable=False)]
)
def test_one_that_ends_on_its_way_leaves_nothing_behind(end: Event) -> None:
    controller = fleet("a", "b")
    running(controller, "q")
    drain(controller)
    controller.on(end)
    assert not controller.state.flights
    assert counts(controller, "a") == counts(controller, "b") == (0, 0, 0, 0)
    assert controller.state.replicas["b"].coming_tokens == 0


def test_a_log_remembers_what_was_assumed() -> None:
    made = controller_of("a", leaving=Assumed(link_bytes_per_s=7.0))
    again = rebuilt(read_header(header(made)))
    assert again.settings.leaving == Assumed(link_bytes_per_s=7.0)
    assert b"leaving" not in header(controller_of("a"))

"""Answers that leave a simulated replica which drains, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.event import Action, Cancelled, Dispatch, Event, Failed, Move, Moved
from millrace.core.outcome import Outcome
from millrace.core.ways import Assumed
from millrace.policies import load
from millrace.simulate import Job, Surroundings, parse_faults, simulate
from millrace.simulate.links import Link
from tests.unit.simulate.test_handover import fleet_of, job
from tests.unit.simulate.test_moving import First

FAST, SLOW = Link(bytes_per_s=1e6, latency_s=0.0), Link(bytes_per_s=100.0, latency_s=0.0)


class Noted(Controller):
    """A controller that remembers what it heard and said; its client leaves upon an action of this kind."""

    leaves_upon: type[Action] | None = None

    def on(self, event: Event) -> list[Action]:
        actions = super().on(event)
        self.heard.append((event, actions))
        if any(type(action) is self.leaves_upon for action in actions):
            actions += super().on(Cancelled(event.now_s, "q"))
        return actions

    heard: list[tuple[Event, list[Action]]]


def play(
    *jobs: Job, script: str, link: Link = FAST, way_s: float = 0.0, replicas: int = 2, **attributes: Any
) -> tuple[Outcome, list[tuple[Event, list[Action]]]]:
    """Return what became of the first job, and what its controller heard and said."""
    made = fleet_of(*["both"] * replicas)  # type: ignore[arg-type]
    said = {
        "decode_step_s": 1.0,
        "prefill_tokens_per_s": 100.0,
        "kv_format": "f",
        "kv_bytes_per_token": 10.0,
    }
    fleet = [replace(one, spec=replace(one.spec, **said)) for one in made]
    leaving = Assumed(link_bytes_per_s=link.bytes_per_s, link_latency_s=link.latency_s)
    settings = ControlSettings(leaving=leaving, max_hold_s=5.0)
    controller = Noted(First(), load("queueing", "fcfs"), settings)
    controller.heard = []
    for name, value in attributes.items():
        setattr(controller, name, value)
    around = Surroundings(
        faults=parse_faults(script), link=link, failover=True, to_engine_s=way_s, from_engine_s=way_s
    )
    found = simulate(jobs, fleet, controller, load("batching", "split_fuse"), surroundings=around)
    assert not controller.state.flights
    for one in controller.state.replicas.values():
        assert (one.waiting, one.running, one.queued_tokens, one.context_tokens, one.coming_tokens) == (
            0,
            0,
            0,
            0,
            0,
        )
    return {one.id: one for one in found.outcomes}[jobs[0].request.id], controller.heard


def moves(heard: list[tuple[Event, list[Action]]]) -> list[Move]:
    return [action for _, actions in heard for action in actions if isinstance(action, Move)]


def test_over_a_fast_link_its_cache_moves() -> None:
    one, heard = play(job("q", output=20), script="drain r0 at 4500ms")
    (move,) = moves(heard)
    assert (move.replica, move.running, move.replayed) == ("r1", True, False)
    assert (one.status, one.replica, one.moves, one.output_tokens) == ("completed", "r1", 1, 20)
    assert [event.replica for event, _ in heard if isinstance(event, Moved)] == ["r1"]


def test_over_a_slow_link_it_is_computed_again() -> None:
    one, heard = play(job("q", output=20), script="drain r0 at 4500ms", link=SLOW)
    (move,) = moves(heard)
    assert (move.replica, move.running, move.replayed) == ("r1", True, True)
    # Asked in the fifth step, so it leaves after that, with five tokens; the prompt takes a step once more.
    failed = next(event for event, _ in heard if isinstance(event, Failed))
    assert (failed.now_s, failed.resume_tokens, failed.replica_down) == (5.0, 5, False)
    assert (one.status, one.replica, one.output_tokens, one.finished_s) == ("completed", "r1", 20, 20.0)


def test_what_is_nearly_over_stays() -> None:
    one, heard = play(job("q", output=6), script="drain r0 at 5500ms", link=SLOW, replicas=2)
    assert moves(heard) == []
    assert (one.status, one.replica, one.finished_s) == ("completed", "r0", 6.0)


def test_what_waits_is_sent_elsewhere() -> None:
    jobs = [job("late", t_s=0.5, prompt=400), job("first", prompt=5000, output=2)]
    one, heard = play(*sorted(jobs, key=lambda each: each.t_s), script="drain r0 at 1500ms")
    assert ("late", False) in [(move.request_id, move.running) for move in moves(heard)]
    assert one.status == "completed"


def test_with_nobody_else_it_stays() -> None:
    one, heard = play(job("q", output=20), script="drain r0 at 4500ms", replicas=1)
    assert moves(heard) == []
    assert one.status == "completed"


@pytest.mark.parametrize("script", ["drain r0 at 4500ms; kill r0 at 4800ms"])
@pytest.mark.parametrize("link", [FAST, SLOW])
def test_a_replica_that_dies_while_they_leave_loses_no_token(script: str, link: Link) -> None:
    one, _ = play(job("q", output=20), script=script, link=link)
    assert (one.status, one.replica, one.output_tokens) == ("completed", "r1", 20)


@pytest.mark.parametrize("script", ["drain r0 at 4500ms; kill r1 at 4800ms"])
def test_where_it_was_to_go_on_may_die_meanwhile(script: str) -> None:
    one, _ = play(job("q", output=20), script=script, link=SLOW, replicas=3)
    assert (one.status, one.replica, one.output_tokens) == ("completed", "r2", 20)


@pytest.mark.parametrize("upon", [Move, Dispatch])
@pytest.mark.parametrize("way_s", [0.0, 0.3, 1.0])
def test_a_client_may_leave_at_any_time(upon: type[Action], way_s: float) -> None:
    one, _ = play(job("q", output=20), script="drain r0 at 4500ms", link=SLOW, way_s=way_s, leaves_upon=upon)
    assert one.status == "cancelled"

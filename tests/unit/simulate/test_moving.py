"""Requests that move between simulated replicas, against figures worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.event import Action, Cancelled, Event, Moved, Ticked
from millrace.core.fleet import Decision, FleetView, Route, Shift
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, Role
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Surroundings, parse_faults, simulate
from millrace.simulate.links import Link, Transfer
from tests.unit.simulate.test_handover import fleet_of, job

LINK = Link(bytes_per_s=1000.0, latency_s=0.25)  # ten bytes a token


@dataclass(frozen=True)
class First:
    """Sends to the first able replica."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route(fleet.able(request)[0].id)


@dataclass(frozen=True)
class Plan:
    """Moves requests at the first question after a moment."""

    period_s: float = 0.5
    plan: tuple[tuple[float, str, str], ...] = ()

    def rebalance(self, fleet: FleetView) -> Iterable[Shift]:
        for moment_s, name, target in self.plan:
            flight = fleet.flights.get(name)
            due = 0 <= fleet.now_s - moment_s < self.period_s
            if due and flight is not None and flight.replica != target:
                yield Shift(name, target)


class Leaving(Controller):
    """A controller whose client leaves at a moment."""

    at_s = 4.0

    def on(self, event: Event) -> list[Action]:
        actions = super().on(event)
        if isinstance(event, Ticked) and event.now_s == self.at_s:
            actions += super().on(Cancelled(event.now_s, "q"))
        return actions


def play(
    jobs: list[Job],
    *plan: tuple[float, str, str],
    fleet: list[ServerSpec] | None = None,
    script: str = "",
    way_s: float = 0.0,
    kind: type[Controller] = Controller,
    **how: Any,
) -> tuple[dict[str, Outcome], list[tuple[str, float, float]], list[tuple[float, str]]]:
    """Return the outcomes, each transfer with its beginning and end, and what was told of moves."""
    migration = Plan(plan=plan)
    controller = kind(First(), load("queueing", "fcfs"), ControlSettings(max_hold_s=5.0), migration=migration)
    carried: list[tuple[str, float, float]] = []
    moved: list[tuple[float, str]] = []

    def note(one: Transfer, now_s: float) -> None:
        assert one.began_s is not None
        carried.append((f"{one.source}>{one.target} {one.bytes:g}", one.began_s, now_s))

    tell = controller.on

    def on(event: Event) -> list[Action]:
        if isinstance(event, Moved):
            moved.append((event.now_s, event.replica))
        return tell(event)

    controller.on = on  # type: ignore[method-assign]
    found = simulate(
        jobs,
        fleet or fleet_of("both", "both"),
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(
            link=LINK, faults=parse_faults(script), to_engine_s=way_s, from_engine_s=way_s
        ),
        transfers=note,
        **how,
    )
    for view in controller.state.replicas.values():
        assert (view.waiting, view.running, view.queued_tokens, view.coming_tokens) == (0, 0, 0, 0)
    return {outcome.id: outcome for outcome in found.outcomes}, carried, moved


def test_a_waiting_request_starts_again_where_it_is_sent() -> None:
    one = {"r0": Limits(sequences=1), "r1": Limits()}
    jobs = [job("a", output=9), job("b")]
    found, carried, moved = play(jobs, (1.5, "b", "r1"), fleet=fleet_of("both", "both", limits=one))
    got = found["b"]
    assert (got.first_token_s, got.finished_s, got.replica) == (2.5, 4.5, "r1")
    assert (got.moves, got.paused_s, carried, moved) == (1, 0.0, [], [])
    assert (found["a"].finished_s, found["a"].moves) == (9.0, 0)


def test_what_the_source_said_before_is_not_heard_any_more() -> None:
    # Its first token is computed at 1.4 s and would be heard at 1.8 s.
    found, _, _ = play([job("q")], (1.5, "q", "r1"), way_s=0.4)
    assert found["q"].first_token_s == pytest.approx(1.5 + 0.4 + 1.0 + 0.4)
    assert found["q"].finished_s == pytest.approx(5.3)
    assert (found["q"].replica, found["q"].moves) == ("r1", 1)
    # Here all of the answer is on its way when the request is moved, and then a refusal.
    found, _, _ = play([job("q", output=1)], (1.5, "q", "r1"), way_s=0.4)
    assert found["q"].first_token_s == found["q"].finished_s == pytest.approx(3.3)
    short = {"r0": Limits(context_tokens=101), "r1": Limits()}
    found, _, _ = play([job("q")], (0.5, "q", "r1"), fleet=fleet_of("both", "both", limits=short), way_s=0.4)
    assert (found["q"].status, found["q"].replica) == ("completed", "r1")


def test_a_request_may_move_on_before_it_has_arrived() -> None:
    found, _, _ = play([job("q")], (0.5, "q", "r1"), (1.0, "q", "r0"), way_s=0.75)
    assert (found["q"].first_token_s, found["q"].replica, found["q"].moves) == (3.5, "r0", 2)


def test_a_source_that_dies_unheard_costs_nothing() -> None:
    found, _, _ = play([job("q")], (1.0, "q", "r1"), script="kill r0 at 900ms", way_s=0.25)
    assert (found["q"].status, found["q"].replica) == ("completed", "r1")


def test_a_running_request_stands_still_for_the_last_stage_only() -> None:
    # Asked at 2.5, the source looks at 3, the target has blocks at 3.25; at 4 the source stops with 103
    # tokens in its cache, which take 1.28 s; the rest of the answer takes a step for each token.
    found, carried, moved = play([job("q", output=9)], (2.5, "q", "r1"))
    assert carried == [("r0>r1 1030", 4.0, 5.28)]
    got = found["q"]
    assert (got.first_token_s, got.replica, got.moves) == (1.0, "r1", 1)
    assert got.paused_s == pytest.approx(1.28)
    assert got.finished_s == pytest.approx(5.28 + 5)
    assert [(round(moment_s, 6), replica) for moment_s, replica in moved] == [(5.28, "r1")]


def test_a_long_cache_is_carried_while_the_source_goes_on() -> None:
    found, carried, _ = play([job("q", prompt=400, output=20)], (2.5, "q", "r1"))
    # 402 tokens take 4.27 s, in which the source makes 4 more, and another while it is asked again.
    ended = [(what, began_s, round(ended_s, 6)) for what, began_s, ended_s in carried]
    assert ended == [("r0>r1 4020", 3.25, 7.52), ("r0>r1 50", 8.0, 8.3)]
    got = found["q"]
    assert (got.moves, round(got.paused_s, 6)) == (1, 0.3)
    assert got.finished_s == pytest.approx(8.3 + 20 - 8)


def test_what_the_target_has_cached_is_not_carried() -> None:
    jobs = [job("before", blocks=6), job("q", 5.0, output=9, blocks=6)]
    fleet = fleet_of("both", "both")
    found, carried, _ = play(jobs, (0.5, "before", "r1"), (7.5, "q", "r1"), fleet=fleet)
    assert [one[0] for one in carried] == ["r0>r1 70"]
    assert found["q"].status == "completed"


def test_a_gap_between_two_tokens_is_as_long_as_the_move() -> None:
    longest: list[float] = []
    for leaping in (True, False):
        controller = Controller(First(), load("queueing", "fcfs"), migration=Plan(plan=((2.5, "q", "r1"),)))
        found = simulate(
            [job("q", output=9)],
            fleet_of("both", "both"),
            controller,
            load("batching", "split_fuse"),
            surroundings=Surroundings(link=LINK),
            leaping=leaping,
            itl=True,
        )
        assert found.itl_s is not None
        assert found.itl_s.count == 8
        longest.append(found.itl_s.max)
    assert longest == pytest.approx([2.28, 2.28], rel=0.02)


@pytest.mark.parametrize(
    ("fleet", "output"),
    [
        (fleet_of("both", "both", limits={"r0": Limits(), "r1": Limits(kv_blocks=4)}), 9),  # no room
        (fleet_of("both", "both", limits={"r0": Limits(), "r1": Limits(context_tokens=101)}), 9),  # too long
        (fleet_of("both", "both"), 4),  # it ends before
    ],
)
def test_a_request_that_cannot_move_stays_and_loses_nothing(fleet: list[ServerSpec], output: int) -> None:
    found, _, _ = play([job("q", output=output)], (2.5, "q", "r1"), fleet=fleet)
    got = found["q"]
    assert (got.status, got.replica, got.moves, got.paused_s) == ("completed", "r0", 0, 0.0)
    assert got.finished_s == output


def test_a_source_too_full_to_go_on_lets_nobody_go() -> None:
    full = {"r0": Limits(kv_blocks=7), "r1": Limits()}
    fleet = fleet_of("both", "both", limits=full)
    found, carried, moved = play([job("q", output=9)], (2.5, "q", "r1"), fleet=fleet)
    assert (found["q"].finished_s, carried) == (9.0, [])
    assert [replica for _, replica in moved] == ["r0"]


def test_after_three_stages_a_request_stays() -> None:
    slow = Link(bytes_per_s=12.0, latency_s=0.25)  # the cache grows nearly as fast as it is carried
    fleet = fleet_of("both", "both", limits={"r0": Limits(block_tokens=1, kv_blocks=900), "r1": Limits()})
    controller = Controller(First(), load("queueing", "fcfs"), migration=Plan(plan=((2.5, "q", "r1"),)))
    found = simulate(
        [job("q", prompt=100, output=400)],
        fleet,
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(link=slow),
    )
    assert (found.outcomes[0].replica, found.outcomes[0].finished_s) == ("r0", 400.0)


@pytest.mark.parametrize(
    ("script", "finished_s"),
    [
        ("kill r1 at 3.1s", 9.0),  # before it is asked
        ("kill r1 at 3.5s", 9.0),  # while the source goes on
        ("kill r1 at 4.5s", 9.5),  # while the request stands still
    ],
)
def test_a_target_that_dies_leaves_the_request_where_it_was(script: str, finished_s: float) -> None:
    found, _, moved = play([job("q", output=9)], (2.5, "q", "r1"), script=script)
    got = found["q"]
    assert (got.status, got.replica, got.moves, got.finished_s) == ("completed", "r0", 0, finished_s)
    assert [replica for _, replica in moved] == ["r0"]


@pytest.mark.parametrize("script", ["kill r0 at 3.1s", "kill r0 at 3.5s", "kill r0 at 4.5s"])
def test_a_source_that_dies_takes_the_request_with_it(script: str) -> None:
    found, carried, moved = play([job("q", output=9)], (2.5, "q", "r1"), script=script)
    assert (found["q"].status, carried, moved) == ("failed", [], [])


@pytest.mark.parametrize("at_s", [2.5, 3.0, 3.5, 4.5, 5.5, 7.0])
@pytest.mark.parametrize("way_s", [0.0, 0.25])
def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(at_s: float, way_s: float) -> None:
    class Impatient(Leaving):
        pass

    Impatient.at_s = at_s
    plan = (2.5, "q", "r1") if way_s == 0 else (2.0, "q", "r1")
    found, _, _ = play([job("q", output=9)], plan, kind=Impatient, way_s=way_s)
    assert found["q"].status == "cancelled"


def test_whoever_drains_moves_what_it_has_and_is_gone_then() -> None:
    found, carried, _ = play([job("q", output=9)], (2.5, "q", "r1"), script="drain r0 at 2s")
    assert (found["q"].replica, len(carried)) == ("r1", 1)
    found, carried, _ = play([job("q", output=9)], (2.5, "q", "r1"), script="drain r1 at 3.5s")
    assert (found["q"].replica, len(carried)) == ("r1", 1)


def test_who_waits_for_its_cache_may_be_sent_elsewhere() -> None:
    roles: tuple[Role, ...] = ("both", "both", "prefill")
    fleet = fleet_of(*roles)
    controller = Controller(
        load("routing", "disaggregated(local_below_tokens=0)"),
        load("queueing", "fcfs"),
        migration=Plan(plan=((1.5, "q", "r0"), (1.5, "q", "r1"))),
    )
    found = simulate(
        [job("q")], fleet, controller, load("batching", "split_fuse"), surroundings=Surroundings(link=LINK)
    ).outcomes[0]
    assert (found.status, found.prefilled_on) == ("completed", None)
    assert found.moves >= 1


def test_a_cache_of_unknown_size_cannot_move() -> None:
    fleet = [replace(one, kv_bytes_per_token=None) for one in fleet_of("both", "both")]
    with pytest.raises(ValueError, match="say its kv_bytes_per_token"):
        play([job("q", output=9)], (2.5, "q", "r1"), fleet=fleet)


def test_engines_of_several_ranks_take_no_part() -> None:
    fleet = fleet_of("both", "both")
    with pytest.raises(ValueError, match="several ranks"):
        play([job("q")], fleet=[fleet[0], replace(fleet[1], ranks=2)])

"""DualMap's hotspots: who is taken from a queue, where to, and what a move has to gain."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.control.flight import Flight
from millrace.core.fleet import ReplicaView, Sent, Shift
from millrace.core.request import Request, Slo
from millrace.policies.migration import dualmap
from millrace.policies.routing.dualmap import Policy as Routing
from millrace.testing import fakes

SPEED: dict[str, Any] = {"prefill_tokens_per_s": 1000.0, "decode_step_s": 0.01}


class Scene:
    """Two replicas, a queue at `a`, and a policy that saw it grow."""

    def __init__(self, *queue: int, b: int = 0, blocks: tuple[int, ...] = (), **settings: Any) -> None:
        self.policy = dualmap.Policy(**settings)
        self.flights: dict[str, Flight] = {}
        held = (fakes.request("held", prompt_tokens=4096, blocks=blocks, block_tokens=512),) if blocks else ()
        self.a = fakes.replica("a", sent=held, **SPEED)
        self.b = fakes.replica("b", waiting=1, queued_tokens=b, **SPEED)
        for n, tokens in enumerate(queue):
            self.send(fakes.request(f"q{n}", prompt_tokens=tokens))

    def send(self, request: Request, *, queued_tokens: int | None = None, moved: bool = False) -> None:
        """Queue a request at `a`."""
        tokens = request.prompt_tokens if queued_tokens is None else queued_tokens
        self.flights[request.id] = Flight(request, 0, "m", 3, replica="a", queued_tokens=tokens)
        self.a.waiting += 1
        self.a.queued_tokens += tokens
        self.policy.note(Sent(0.0, request, "a", moved, tokens))

    def moves(self, now_s: float = 0.0, *others: ReplicaView) -> list[str]:
        """Return who moves, booking each before the next is asked for, as a controller does."""
        fleet = fakes.fleet(self.a, self.b, *others, now_s=now_s, flights=self.flights)
        moved = []
        for shift in self.policy.rebalance(fleet):
            assert isinstance(shift, Shift)
            flight = self.flights[shift.request_id]
            target = next(r for r in fleet.replicas if r.id == shift.replica)
            self.a.queued_tokens -= flight.queued_tokens
            self.a.waiting -= 1
            flight.queued_tokens = flight.request.prompt_tokens
            target.queued_tokens += flight.queued_tokens
            flight.replica = shift.replica
            self.policy.note(Sent(now_s, flight.request, shift.replica, True, flight.queued_tokens))
            moved.append(f"{shift.request_id}>{shift.replica}")
        return moved


def test_who_gains_most_leaves_a_hotspot_until_it_is_none() -> None:
    # q2 would wait 6 s in all; without it, or without q1, everybody meets 5 s.
    scene = Scene(2000, 2000, 2000)
    assert scene.moves() == ["q2>b"]
    assert Scene(2000, 2000, 2000, 2000, 2000).moves() == ["q4>b", "q3>b"]


def test_a_queue_in_which_all_are_in_time_is_left_alone() -> None:
    assert Scene(2000, 2000, 900).moves() == []
    assert Scene(2000, 2000, 900, slo_ttft_s=4.5).moves() == ["q2>b"]


def test_the_time_already_waited_counts_and_so_does_the_work_done() -> None:
    scene = Scene(3000, 1500)
    assert scene.moves(now_s=1.0) == []  # a second of work has been done
    late = Scene(3000, 1500)
    late.flights["q1"].request = replace(late.flights["q1"].request, slo=Slo(ttft_s=4.0))
    assert late.moves(now_s=1.0) == ["q1>b"]


def test_a_request_that_is_late_because_of_its_own_length_stays() -> None:
    assert Scene(9000).moves() == []


def test_a_move_must_gain_more_than_the_margin() -> None:
    assert Scene(4000, 2000, b=3300).moves() == ["q1>b"]
    assert Scene(4000, 2000, b=3800).moves() == []
    assert Scene(4000, 2000, b=3800, margin_s=0.1).moves() == ["q1>b"]


def test_where_it_goes_its_turn_must_come_in_time() -> None:
    assert Scene(9000, 2000, b=5100, patience=1.0).moves() == []
    assert Scene(9000, 2000, b=4900, patience=1.0).moves() == ["q1>b"]
    assert Scene(20_000, 2000, b=10_100).moves() == []
    assert Scene(20_000, 2000, b=9900).moves() == ["q1>b"]


def test_what_the_cache_would_lose_has_to_be_won_several_times() -> None:
    blocks = tuple(range(1, 9))
    warm = fakes.request("warm", prompt_tokens=4196, blocks=blocks, block_tokens=512)
    for ahead, expected in ((8000, []), (9000, ["warm>b"])):
        scene = Scene(ahead, blocks=blocks, cache_factor=1.0)
        scene.send(warm, queued_tokens=100)
        assert scene.moves() == expected
    scene = Scene(8000, blocks=blocks, cache_factor=0.0)
    scene.send(warm, queued_tokens=100)
    assert scene.moves() == ["warm>b"]


def test_who_waits_behind_a_prompt_that_takes_far_longer_than_foreseen_leaves_it() -> None:
    scene = Scene()
    scene.send(fakes.request("forgotten", prompt_tokens=9000), queued_tokens=100)
    scene.send(fakes.request("behind", prompt_tokens=500))
    assert scene.moves(now_s=0.3) == []  # 0.4 s were foreseen for both
    assert scene.moves(now_s=0.5) == ["behind>b"]


def test_nobody_moves_twice() -> None:
    scene = Scene(4000)
    scene.send(fakes.request("again", prompt_tokens=2000), moved=True)
    assert scene.moves() == []


@pytest.mark.parametrize(
    "change",
    [{"started": True}, {"prefill_on": "p"}, {"moving_to": "b"}, {"replica": "b"}],
)
def test_some_requests_cannot_move(change: dict[str, Any]) -> None:
    scene = Scene(4000, 2000)
    for name, value in change.items():
        setattr(scene.flights["q1"], name, value)
    assert scene.moves() == []


def test_there_must_be_somewhere_to_go() -> None:
    scene = Scene(4000, 2000)
    scene.b.phase = "draining"
    assert scene.moves() == []
    scene = Scene(4000, 2000)
    scene.flights.clear()
    assert scene.moves() == []
    empty = dualmap.Policy()
    assert not list(empty.rebalance(fakes.fleet()))


def test_a_request_moves_to_one_of_the_homes_that_routing_knows() -> None:
    others = [fakes.replica(f"r{n}", **SPEED) for n in range(6)]
    for start in range(20):
        scene = Scene(9000)
        request = fakes.request("late", prompt_tokens=2000, blocks=(start, start + 100), block_tokens=512)
        scene.send(request)
        moved = scene.moves(0.0, *others)
        router = Routing()
        able = {r.id: r for r in (scene.a, scene.b, *others)}
        homes = {home.id for home in router._homes.pair(request, tuple(able), able)}
        assert moved[0].partition(">")[2] in homes - {"a"}


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="slo_ttft_s is 0"):
        dualmap.Policy(slo_ttft_s=0)
    for name in ("margin_s", "wait_s", "cache_factor", "patience"):
        with pytest.raises(ValueError, match=f"{name} is -1; it must not be negative"):
            dualmap.Policy(**{name: -1})

"""What simulated engines say of their caches, and who hears it when."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.event import (
    Action,
    BlocksRemoved,
    BlocksStored,
    CacheChange,
    CacheChanged,
    CacheCleared,
    Event,
    Started,
)
from millrace.core.replica import Limits
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Sessions, Surroundings, parse_faults, simulate
from millrace.simulate.sessions import Turn
from millrace.simulate.telling import in_blocks
from tests.unit.simulate.test_handover import fleet_of, job

EVENTS = ControlSettings(prefix_knowledge="events", prefix_ttl_s=0.001)


class Heard(Controller):
    """A controller that keeps what it hears of caches, and of first tokens."""

    def __init__(self, settings: ControlSettings = EVENTS) -> None:
        super().__init__(load("routing", "round_robin"), load("queueing", "fcfs"), settings)
        self.heard: list[Event] = []

    def on(self, event: Event) -> list[Action]:
        if isinstance(event, CacheChanged | Started):
            self.heard.append(event)
        return super().on(event)


def heard_of(
    jobs: list[Job] | Sessions, fleet: list[ServerSpec], settings: ControlSettings = EVENTS, script: str = ""
) -> list[Event]:
    """What a controller hears of one fleet; the way back takes half a second."""
    mind = Heard(settings)
    way = Surroundings(from_engine_s=0.5, faults=parse_faults(script))
    simulate(jobs, fleet, mind, load("batching", "split_fuse"), surroundings=way)
    return mind.heard


def changes_of(*jobs: Job, script: str = "", kv_blocks: int = 100) -> list[CacheChange]:
    (server,) = fleet_of("both")
    spec = replace(server.spec, limits=Limits(kv_blocks=kv_blocks))
    found = heard_of(list(jobs), [replace(server, spec=spec)], script=script)
    return [change for event in found if isinstance(event, CacheChanged) for change in event.changes]


def test_a_prompt_is_told_with_its_first_token() -> None:
    told, started = heard_of([job("a", blocks=3)], fleet_of("both"))
    assert told == CacheChanged(1.5, "r0", (BlocksStored((1, 2, 3), (1, 2, 3)),))
    assert started == Started(1.5, "a")


def test_what_follows_known_blocks_names_the_one_in_front() -> None:
    longer = job("b", 10.0, blocks=5)
    assert changes_of(job("a", blocks=3), longer) == [
        BlocksStored((1, 2, 3), (1, 2, 3)),
        BlocksStored((4, 5), (4, 5), 3),
    ]


def test_two_prompts_that_part_are_two_rows() -> None:
    fork = replace(job("b", 0.0), blocks=(1, 2, 7, 8))
    assert changes_of(job("a", blocks=3), fork) == [
        BlocksStored((1, 2, 3), (1, 2, 3)),
        BlocksStored((7, 8), (7, 8), 2),
    ]


def test_what_makes_room_is_told_before_what_comes() -> None:
    other = replace(job("b", 10.0), blocks=(20, 21, 22, 23, 24, 25))
    assert changes_of(job("a", blocks=6), other, kv_blocks=8) == [
        BlocksStored(tuple(range(1, 7)), tuple(range(1, 7))),
        BlocksRemoved((2, 3, 4, 5, 6)),
        BlocksStored(tuple(range(20, 26)), tuple(range(20, 26))),
    ]


def test_a_replica_that_comes_back_begins_anew() -> None:
    script = "kill r0 at 5s; start r0 at 6s"
    assert changes_of(job("a", blocks=2), job("b", 10.0, blocks=2), script=script) == [
        BlocksStored((1, 2), (1, 2)),
        CacheCleared(),
        BlocksStored((1, 2), (1, 2)),
    ]


def test_an_engine_without_a_prefix_cache_says_nothing() -> None:
    (server,) = fleet_of("both")
    spec = replace(server.spec, limits=Limits(kv_blocks=100, prefix_caching=False))
    assert heard_of([job("a", blocks=3)], [replace(server, spec=spec)]) == [Started(1.5, "a")]


def test_nothing_is_told_to_who_believes_what_was_sent() -> None:
    assert heard_of([job("a", blocks=3)], fleet_of("both"), ControlSettings()) == [Started(1.5, "a")]


def test_later_turns_are_known_in_the_blocks_of_the_engine_too() -> None:
    first, second = (replace(job(name), blocks=(1, 2), block_tokens=32) for name in ("a", "b"))
    talks = Sessions([[Turn(first), Turn(second, "a", 10.0)]])
    mind = Heard(replace(EVENTS, prefix_ttl_s=9.0))
    simulate(talks, fleet_of("both"), mind, load("batching", "split_fuse"))
    known = in_blocks(second, 16).request
    assert (known.block_tokens, len(known.blocks)) == (16, 4)
    assert mind.state.replicas["r0"].prefix.matched_tokens(known) == 64


def test_caches_that_cannot_be_told_apart_are_refused() -> None:
    one, other = fleet_of("both", "both")
    fine = replace(other, spec=replace(other.spec, limits=Limits(kv_blocks=100, block_tokens=8)))
    with pytest.raises(
        ValueError, match="blocks have 8 and 16 tokens: give all replicas the same block_size"
    ):
        heard_of([], [one, fine])
    with pytest.raises(ValueError, match="r0 has a cache in each of its ranks: leave out ep, or say sent"):
        heard_of([], [replace(one, ranks=2)])

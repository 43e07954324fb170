"""A setting chooses from what a fleet's prefix caches are known; policies cannot tell the difference."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millrace.control import ControlSettings
from millrace.control.log import entry, header, replay
from millrace.core.blocks import chain_contents
from millrace.core.event import (
    Arrived,
    BlocksRemoved,
    BlocksStored,
    CacheChanged,
    CacheCleared,
    Event,
    Reported,
)
from millrace.core.replica import ReplicaSpec
from millrace.testing import fakes
from tests.unit.control.scripted import arrive, controller_of, join

BLOCKS = chain_contents((1, 2, 3))
STORED = BlocksStored((11, 12), (1, 2))


def _queued(controller: Any) -> int:
    queued: int = controller.state.replicas["a"].queued_tokens
    return queued


def test_without_knowledge_every_prompt_is_queued_whole() -> None:
    controller = controller_of("a", prefix_knowledge="none")
    for name in ("q0", "q1"):
        arrive(controller, name, prompt_tokens=100, blocks=BLOCKS)
    assert _queued(controller) == 200
    prefix = controller.state.replicas["a"].prefix
    assert prefix.matched_tokens(fakes.request(blocks=BLOCKS)) == 0
    assert prefix.matched_by_medium(fakes.request(blocks=BLOCKS)) == (0, 0, 0)
    controller.on(Reported(1.0, "a", "gone"))
    assert controller.prefix_index_bytes() == {"a": 0}


def test_what_was_sent_is_forgotten_after_a_while() -> None:
    controller = controller_of("a", prefix_knowledge="sent", prefix_ttl_s=4.0)
    arrive(controller, "q0", prompt_tokens=100, blocks=BLOCKS)
    arrive(controller, "q1", prompt_tokens=100, blocks=BLOCKS, now_s=1.0)
    assert _queued(controller) == 100 + 52
    arrive(controller, "q2", prompt_tokens=100, blocks=BLOCKS, now_s=9.0)
    assert _queued(controller) == 100 + 52 + 100


def test_what_an_engine_says_of_its_cache_is_believed() -> None:
    controller = controller_of("a", prefix_knowledge="events")
    assert controller.on(CacheChanged(0.5, "a", (STORED,))) == []
    arrive(controller, "q0", prompt_tokens=100, blocks=BLOCKS, now_s=1.0)
    assert _queued(controller) == 100 - 32


def test_what_was_sent_is_believed_for_as_long_as_is_set() -> None:
    controller = controller_of("a", prefix_knowledge="events", prefix_ttl_s=50.0)
    arrive(controller, "q0", prompt_tokens=100, blocks=BLOCKS)
    arrive(controller, "q1", prompt_tokens=100, blocks=BLOCKS, now_s=40.0)
    assert _queued(controller) == 100 + 52


def test_a_replica_that_restarts_is_known_to_hold_nothing() -> None:
    controller = controller_of("a", prefix_knowledge="events")
    controller.on(CacheChanged(0.5, "a", (STORED,)))
    controller.on(Reported(1.0, "a", "gone"))
    join(controller, "a")
    arrive(controller, "q0", prompt_tokens=100, blocks=BLOCKS, now_s=3.0)
    assert _queued(controller) == 100


def test_nobody_listens_to_an_engine_if_that_is_not_wanted() -> None:
    controller = controller_of("a")
    assert controller.on(CacheChanged(0.5, "a", (STORED,))) == []
    assert controller.prefix_index_bytes() == {"a": 0}


def test_what_an_unknown_engine_says_is_ignored() -> None:
    controller = controller_of("a", prefix_knowledge="events")
    assert controller.on(CacheChanged(0.5, "nobody", (STORED,))) == []
    assert controller.prefix_index_bytes() == {"a": 0}


def test_a_log_says_what_changed_in_a_cache() -> None:
    said = CacheChanged(1.0, "a", (STORED,))
    assert msgspec.json.decode(msgspec.json.encode(said), type=Event) == said


def test_a_log_from_before_there_was_a_choice_believes_in_what_was_sent() -> None:
    assert b"prefix_knowledge" not in msgspec.json.encode(ControlSettings())


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_believed_for_a_while_is_so_for_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(
        ValueError, match=f"prefix_ttl_s is {seconds}; it must be a number of seconds above 0"
    ):
        ControlSettings(prefix_ttl_s=seconds)


def test_a_log_with_the_engines_words_in_it_replays() -> None:
    controller = controller_of(prefix_knowledge="events")
    lines = [header(controller)]
    events: list[Event] = [
        Reported(0.0, "a", "ready", ReplicaSpec(models=("m",))),
        Reported(0.0, "b", "ready", ReplicaSpec(models=("m",))),
        CacheChanged(1.0, "b", (STORED,)),
        Arrived(2.0, fakes.request("q0", blocks=BLOCKS)),
        CacheChanged(3.0, "b", (BlocksRemoved((12,)), CacheCleared())),
        Arrived(9.0, fakes.request("q1", blocks=BLOCKS)),
    ]
    lines += [entry(event, controller.on(event)) for event in events]
    assert controller.state.flights["q0"].replica == "b"
    replayed = replay(lines)
    assert (replayed.identical, replayed.first_difference) == (replayed.actions, None)

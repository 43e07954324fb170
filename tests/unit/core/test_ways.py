"""Ways to leave a replica that drains, against figures worked out by hand."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from millrace.control.flight import Flight
from millrace.core.fleet import ReplicaView
from millrace.core.replica import Report
from millrace.core.ways import Assumed, Way, Ways, soonest, told
from millrace.testing import fakes

ASSUMED = Assumed(link_bytes_per_s=1000.0, link_latency_s=0.5)
SPEEDS: dict[str, Any] = {"prefill_tokens_per_s": 100.0, "decode_step_s": 0.25}
CACHE: dict[str, Any] = {"kv_format": "f", "kv_bytes_per_token": 10.0}


def ways(
    source: ReplicaView, *targets: ReplicaView, now_s: float = 10.0, barred: tuple[str, ...] = (), **how: Any
) -> dict[tuple[str, str], float]:
    """The seconds of each way for an answer whose first token came at 8 s, unless told otherwise."""
    fields = {key: how.pop(key) for key in ("expected_tokens", "blocks", "max_tokens") if key in how}
    request = fakes.request(**{"max_tokens": 30, **fields})
    state = {"replica": source.id, "started": True, "started_s": 8.0, "queued_tokens": 100, "sent_s": 7.0}
    flight = Flight(request, 0, "m", 3, **(state | how))  # type: ignore[arg-type]
    fleet = fakes.fleet(source, *targets, now_s=now_s, flights={"q": flight})
    found = Ways(ASSUMED).on(flight, source, targets, fleet, waiting=fleet.flights.values(), barred=barred)
    return {(way.kind, way.replica): way.seconds for way in found}


def test_an_answer_stays_for_as_long_as_it_has_tokens_to_come() -> None:
    source = fakes.replica("a", **SPEEDS)
    assert ways(source) == {("stay", "a"): 21 * 0.25}  # the ninth token of thirty is on its way
    assert ways(source, expected_tokens=19) == {("stay", "a"): 10 * 0.25}
    assert ways(source, expected_tokens=5) == {("stay", "a"): 21 * 0.25}  # it is longer than expected
    assert ways(source, max_tokens=4) == {("stay", "a"): 0.25}
    assert ways(fakes.replica("a")) == {("stay", "a"): 30 * 0.1}  # of unknown speed: slow, and just begun


def test_a_cache_moves_as_fast_as_the_link_between_replicas_that_understand_each_other() -> None:
    source, target = fakes.replica("a", **SPEEDS, **CACHE), fakes.replica("b", **SPEEDS, **CACHE)
    assert ways(source, target, barred=("replay",))["move", "b"] == 0.5 + 109 * 0.01
    other = fakes.replica("b", **SPEEDS, **(CACHE | {"kv_format": "g"}))
    assert ("move", "b") not in ways(source, other)
    assert ("move", "b") not in ways(source, target, barred=("move",))
    assert ("move", "b") not in ways(fakes.replica("a", kv_format="f"), target)
    assert ("move", "b") not in ways(fakes.replica("a", kv_bytes_per_token=1.0), target)


def test_an_answer_is_computed_again_behind_what_queues_less_what_is_cached() -> None:
    source = fakes.replica("a", **SPEEDS)
    target = fakes.replica("b", **SPEEDS, queued_tokens=50, coming_tokens=20)
    assert ways(source, target)["replay", "b"] == pytest.approx(0.5 + 0.2 + 1.09)
    knows = fakes.replica("b", **SPEEDS, sent=(fakes.request(blocks=(1, 2)),))
    assert ways(source, knows, blocks=(1, 2, 3))["replay", "b"] == pytest.approx(1.09 - 0.32)


def test_who_has_no_token_yet_compares_two_queues() -> None:
    source, target = fakes.replica("a", **SPEEDS, queued_tokens=900), fakes.replica("b", **SPEEDS, **CACHE)
    waits: dict[str, Any] = {"started": False, "queued_tokens": 900}
    assert ways(source, target, **waits) == {("stay", "a"): 9.0 - 3.0, ("replay", "b"): 1.0}
    assert ways(source, now_s=20.0, **waits) == {("stay", "a"): 0.0}  # it may have been at work all the time


def test_where_there_is_no_room_nothing_goes() -> None:
    source = fakes.replica("a", **SPEEDS, **CACHE)
    full = fakes.replica(
        "b", **SPEEDS, **CACHE, coming_tokens=60, report=Report(now_s=0.0, kv_free_tokens=159)
    )
    assert ways(source, full).keys() == {("stay", "a")}
    silent = fakes.replica("b", **SPEEDS, **CACHE, report=Report(now_s=0.0))
    assert ways(source, silent).keys() == {("stay", "a"), ("move", "b"), ("replay", "b")}


def test_what_was_weighed_is_told_by_replica_the_soonest_first() -> None:
    found = [
        Way("stay", "a", 5.0),
        Way("move", "b", 2.0),
        Way("replay", "b", 1.0),
        *(Way("replay", f"c{n}", 1.0) for n in range(5)),
    ]
    chosen = soonest(found)
    assert chosen == Way("replay", "b", 1.0)
    why = told(chosen, found)
    assert why.why == "replay"
    assert [one.replica for one in why.weighed] == ["b", "c0", "c1", "c2"]
    assert (why.weighed[0].total, why.weighed[0].terms) == (1.0, {"move": 2.0, "replay": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"period_s": 0.0},
        {"link_bytes_per_s": nan},
        {"prefill_tokens_per_s": -1.0},
        {"decode_step_s": 0.0},
        {"link_latency_s": -1.0},
        {"link_latency_s": inf},
    ],
)
def test_what_is_assumed_must_be_possible(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Assumed(**wrong)

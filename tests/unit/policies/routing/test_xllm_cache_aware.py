"""xLLM's cache-aware score: as it was meant, and as integers make it."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.event import Arrived, Finished, Reported
from millrace.core.fleet import Hold, ReplicaView, Route
from millrace.core.replica import Limits, Report
from millrace.policies import load
from millrace.policies.routing.xllm_cache_aware import Policy
from millrace.testing import fakes

BLOCKS = tuple(range(8))
ASKED = fakes.request(prompt_tokens=130, blocks=BLOCKS)


def _replica(
    id: str, *, matched: int = 0, taken: float = 0.0, waiting: int = 0, **fields: Any
) -> ReplicaView:
    report = Report(now_s=0.0, waiting=waiting, kv_free_tokens=round(1000 * (1 - taken)))
    sent = (fakes.request("sent", blocks=BLOCKS[:matched]),) if matched else ()
    return fakes.replica(
        id, sent=sent, report=report, limits=Limits(kv_blocks=100, block_tokens=10), **fields
    )


def test_the_score_as_it_was_meant_and_as_it_is_written() -> None:
    replicas = [_replica("a", matched=7, taken=0.2, waiting=3), _replica("b", waiting=4)]
    assert Policy().scores(ASKED, replicas, 0.0) == pytest.approx([0.875 - 0.2 - 0.75, -1.0])
    assert Policy(as_written=True).scores(ASKED, replicas, 0.0) == pytest.approx([-0.2, -1.0])


def test_as_written_a_prefix_counts_only_if_the_whole_prompt_is_there() -> None:
    for matched in (7, 8):
        warm = _replica("warm", matched=matched, taken=0.1)
        fleet = fakes.fleet(warm, _replica("emptier"))
        assert Policy().route(ASKED, fleet) == Route("warm")
        assert Policy(as_written=True).route(ASKED, fleet) == Route("warm" if matched == 8 else "emptier")


def test_as_written_a_queue_counts_only_if_nobody_has_a_longer_one() -> None:
    short, long, longest = _replica("short"), _replica("long", waiting=9), _replica("longest", waiting=10)
    assert Policy().scores(ASKED, [short, long, longest], 0.0) == [0.0, -0.9, -1.0]
    assert Policy(as_written=True).scores(ASKED, [short, long, longest], 0.0) == [0.0, 0.0, -1.0]


def test_somebody_is_chosen_at_any_score() -> None:
    full = _replica("full", taken=1.0, waiting=5, queued_tokens=3000)
    for as_written in (False, True):
        assert Policy(as_written=as_written).route(ASKED, fakes.fleet(full)) == Route("full")


def test_a_fleet_with_empty_queues_and_prompts_without_blocks_are_compared_by_memory() -> None:
    replicas = [_replica("a", taken=0.5), _replica("b", taken=0.25)]
    assert Policy().scores(fakes.request(), replicas, 0.0) == [-0.5, -0.25]


def test_who_says_nothing_is_as_full_and_as_busy_as_any() -> None:
    silent = fakes.replica("silent", limits=Limits(kv_blocks=100, block_tokens=10))
    known = [_replica("a", taken=0.75, waiting=1), _replica("b", taken=0.5, waiting=2)]
    assert Policy().scores(fakes.request(), [*known, silent], 0.0) == [-1.25, -1.5, -1.75]


def test_equals_are_drawn() -> None:
    fleet = fakes.fleet(_replica("a"), _replica("b"))
    assert {Policy().route(fakes.request(f"q{n}"), fleet) for n in range(40)} == {Route("a"), Route("b")}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_what_a_dead_replica_held_counts_no_more_when_it_is_back() -> None:
    controller = Controller(Policy(), load("queueing", "fcfs"))
    spec = fakes.replica("r").spec
    controller.on(Reported(0.0, "r", "ready", spec))
    controller.on(Arrived(1.0, ASKED))
    controller.on(Finished(2.0, ASKED.id))
    replicas = controller.state.view(2.0, "m").replicas
    assert Policy().scores(ASKED, replicas, 2.0) == [1.0]
    controller.on(Reported(3.0, "r", "gone"))
    controller.on(Reported(4.0, "r", "ready"))
    assert Policy().scores(ASKED, replicas, 4.0) == [0.0]

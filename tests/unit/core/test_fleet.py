"""What a policy sees of a fleet: who is able, and what is known of each replica."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from millrace.core.fleet import Decision, FleetView, Hold, Reject, Route
from millrace.core.replica import Report
from millrace.core.request import Request
from millrace.testing import fakes, strategies


def _able(fleet: FleetView, request: Request) -> list[str]:
    return [replica.id for replica in fleet.able(request)]


@pytest.mark.parametrize("phase", ["starting", "draining", "gone"])
def test_only_ready_replicas_are_able(phase: str) -> None:
    fleet = fakes.fleet(fakes.replica("a", phase=phase), fakes.replica("b"))
    assert _able(fleet, fakes.request()) == ["b"]


def test_only_replicas_that_serve_the_model_are_able() -> None:
    fleet = fakes.fleet(fakes.replica("a", models=("n",)), fakes.replica("b", models=("n", "m")))
    assert _able(fleet, fakes.request(model="m")) == ["b"]
    assert _able(fleet, fakes.request(model="absent")) == []


def test_able_replicas_come_in_the_order_of_their_names() -> None:
    fleet = fakes.fleet(*(fakes.replica(name) for name in ("r2", "r10", "r1")))
    assert _able(fleet, fakes.request()) == ["r1", "r10", "r2"]


def test_a_replica_to_avoid_is_able_only_when_no_other_is() -> None:
    both = fakes.fleet(fakes.replica("a"), fakes.replica("b"), avoid=frozenset({"a"}))
    assert _able(both, fakes.request()) == ["b"]
    alone = fakes.fleet(fakes.replica("a"), fakes.replica("b", phase="gone"), avoid=frozenset({"a"}))
    assert _able(alone, fakes.request()) == ["a"]


def test_a_kernels_view_remembers_who_is_ready_until_told_to_forget() -> None:
    replicas = [fakes.replica("a"), fakes.replica("b", models=("n",))]
    fleet = fakes.fleet(*replicas, ready={})
    assert (_able(fleet, fakes.request()), _able(fleet, fakes.request(model="n"))) == (["a"], ["b"])
    assert fleet.able(fakes.request()) is fleet.able(fakes.request())
    replicas[0].phase = "gone"
    assert _able(fleet, fakes.request()) == ["a"]
    fleet.forget_ready()
    assert _able(fleet, fakes.request()) == []


def test_a_view_made_by_hand_looks_anew_every_time() -> None:
    replica = fakes.replica("a")
    fleet = fakes.fleet(replica)
    assert _able(fleet, fakes.request()) == ["a"]
    fleet.forget_ready()
    replica.phase = "gone"
    assert _able(fleet, fakes.request()) == []


def test_names_that_nobody_serves_take_no_memory() -> None:
    fleet = fakes.fleet(fakes.replica("a"), ready={})
    for n in range(50):
        assert _able(fleet, fakes.request(model=f"absent-{n}")) == []
    assert fleet.ready == {}


@given(strategies.fleets(), strategies.requests())
def test_whoever_is_able_is_ready_and_serves_the_model(fleet: FleetView, request: Request) -> None:
    able = fleet.able(request)
    assert all(r.phase == "ready" and request.model in r.spec.models for r in able)
    assert {r.id in fleet.avoid for r in able} != {True, False}


def test_a_replica_counts_what_it_waits_for_and_what_it_runs() -> None:
    assert fakes.replica("a", waiting=2, running=3).in_flight == 5


def test_a_replica_that_never_reported_was_never_seen() -> None:
    assert fakes.replica("a").seen_s is None
    assert fakes.replica("a", report=Report(now_s=0.0)).seen_s == 0.0


@pytest.mark.parametrize("decision", [Route("r"), Route("r", "warm"), Hold("nobody"), Reject("no", 429)])
def test_every_decision_survives_a_log(decision: Decision) -> None:
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


def test_who_only_computes_prompts_is_named_apart() -> None:
    replicas = [
        fakes.replica("c", role="prefill"),
        fakes.replica("a", role="prefill"),
        fakes.replica("b", role="decode"),
        fakes.replica("d", role="encode"),
        fakes.replica("e", role="prefill", phase="draining"),
        fakes.replica("f", role="prefill", models=("other",)),
    ]
    for fleet in (fakes.fleet(*replicas), fakes.fleet(*replicas, ready={})):
        for _ in range(2):
            assert [r.id for r in fleet.prefilling(fakes.request())] == ["a", "c"]
            assert [r.id for r in fleet.able(fakes.request())] == ["b"]
    spared = fakes.fleet(*replicas, avoid=frozenset("a"))
    assert [r.id for r in spared.prefilling(fakes.request())] == ["c"]
    spared = fakes.fleet(*replicas, avoid=frozenset("ac"))
    assert [r.id for r in spared.prefilling(fakes.request())] == ["a", "c"]


def test_who_computes_prompts_is_remembered_until_somebody_changes() -> None:
    replica = fakes.replica("a", role="prefill")
    fleet = fakes.fleet(replica, ready={})
    assert fleet.prefilling(fakes.request(model="nobody's")) == ()
    assert fleet.ready == {}
    assert fleet.prefilling(fakes.request()) == (replica,)
    replica.phase = "gone"
    assert fleet.prefilling(fakes.request()) == (replica,)
    fleet.forget_ready()
    assert fleet.prefilling(fakes.request()) == ()

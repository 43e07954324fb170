"""Where a request costs least, is still in time, or is out of the others' way."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Reported
from millrace.core.fleet import FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.core.request import Request, Slo
from millrace.policies import load
from millrace.policies.routing.millrace import Policy
from millrace.testing import fakes

LIMITS = Limits(step_tokens=100)
BLOCKS = tuple(range(1, 7))  # of 16 tokens each: 96 of a hundred


def one(id: str, **fields: Any) -> ReplicaView:
    """A replica that takes a second for each hundred tokens."""
    return fakes.replica(id, limits=LIMITS, prefill_tokens_per_s=100.0, **fields)


def asked(tokens: int = 100, ttft_s: float | None = 10.0, **fields: Any) -> Request:
    return fakes.request(prompt_tokens=tokens, slo=Slo(ttft_s=ttft_s), **fields)


def chosen(request: Request, *replicas: ReplicaView, **settings: Any) -> Route:
    decision = Policy(**settings).route(request, fakes.fleet(*replicas))
    assert isinstance(decision, Route)
    return decision


def test_nobody_able_means_to_wait() -> None:
    assert isinstance(Policy().route(asked(), FleetView(now_s=0.0, replicas=())), Hold)


def test_where_there_is_room_a_cached_prefix_is_worth_the_wait_that_it_saves() -> None:
    knows = one("knows", queued_tokens=100, sent=(asked(200, blocks=BLOCKS * 2),))
    request = asked(200, blocks=tuple(range(1, 13)))
    knows = one("knows", queued_tokens=100, sent=(request,))
    assert chosen(request, knows, one("idle"), wait_weight=0.5).replica == "knows"
    assert chosen(request, knows, one("idle"), wait_weight=2.0).replica == "idle"


def test_work_is_kept_from_those_who_have_many_running() -> None:
    crowded = one("crowded", running=40)
    waiting = one("waiting", running=1, queued_tokens=50)
    assert chosen(asked(50), crowded, waiting, others_weight=0.0).replica == "crowded"
    assert chosen(asked(50), crowded, waiting).replica == "waiting"


def test_a_prefix_where_there_is_no_room_is_not_waited_for() -> None:
    request = asked(200, blocks=tuple(range(1, 13)))
    knows = one("knows", queued_tokens=600, sent=(request,))
    assert chosen(request, knows, one("idle"), wait_weight=0.0).replica == "idle"


def test_without_room_the_soonest_is_taken() -> None:
    request = asked(700, blocks=tuple(range(1, 7)))
    knows = one("knows", queued_tokens=200, sent=(request,))
    decision = chosen(request, knows, one("idle"), wait_weight=0.0)
    assert (decision.replica, decision.why) == ("idle", "soonest")


def test_a_request_that_is_late_anywhere_joins_the_longest_queue() -> None:
    fleet = [one("a", queued_tokens=900), one("b", queued_tokens=5000), one("c", queued_tokens=700)]
    decision = chosen(asked(1000), *fleet)
    assert (decision.replica, decision.why) == ("b", "late anywhere: out of the way")
    assert chosen(asked(1000), *fleet, patience_s=40.0).replica == "a"
    assert chosen(asked(1000), *fleet, patience_s=1.0).replica == "c"


def test_when_too_many_are_late_none_is_made_later() -> None:
    policy = Policy(most_late=0.02)
    spec = ReplicaSpec(models=("m",), limits=LIMITS, prefill_tokens_per_s=100.0)
    fleet = [one("a", queued_tokens=900), one("b", queued_tokens=5000)]
    for number, tokens in enumerate([900, *[1000] * 6]):
        policy.note(Reported(0.0, "a", "ready", spec))
        decision = policy.route(asked(1000), fakes.fleet(*fleet))
        assert isinstance(decision, Route)
        assert decision.why.startswith("soonest" if number > 5 else "late"), number
        sent = asked(tokens, id=f"q{number}") if number else asked(tokens, id="q", ttft_s=None)
        policy.note(Sent(0.0, sent, "a", queued_tokens=tokens))
        policy.note(Sent(0.0, sent, "a", moved=True, queued_tokens=tokens))


def test_while_the_fleet_is_at_ease_a_late_request_is_not_made_later() -> None:
    fleet = [one("a"), one("b", queued_tokens=100), one("c", queued_tokens=900), one("d"), one("e")]
    assert chosen(asked(2000), *fleet).replica in ("a", "d", "e")
    assert chosen(asked(2000), *fleet, at_ease=0.9).replica == "c"


def test_without_an_objective_the_soonest_is_taken_and_the_setting_gives_one() -> None:
    fleet = [one("a", queued_tokens=900), one("b", queued_tokens=5000)]
    assert chosen(asked(1000, ttft_s=None), *fleet).replica == "a"
    assert chosen(asked(1000, ttft_s=None), *fleet, slo_ttft_s=10.0).replica == "b"


def test_an_adapter_that_must_be_loaded_first_counts() -> None:
    has = one("has", adapters=("poet",), adapter_load_s=5.0, queued_tokens=300)
    lacks = one("lacks", adapter_load_s=5.0)
    assert chosen(asked(adapter="poet", ttft_s=None), has, lacks).replica == "has"
    assert chosen(asked(ttft_s=None), has, lacks).replica == "lacks"


def test_requests_of_others_that_are_reported_to_wait_count() -> None:
    busy = one("busy", report=Report(now_s=0.0, waiting=3))
    alike = one("alike", report=Report(now_s=0.0, waiting=3), waiting=3, queued_tokens=100)
    idle = one("idle", report=Report(now_s=0.0, waiting=1))
    assert chosen(asked(), busy, idle).replica == "idle"
    assert chosen(asked(), busy, alike).replica == "alike"


def test_of_many_replicas_those_are_weighed_that_may_be_best() -> None:
    request = asked(blocks=BLOCKS)
    fleet = [one(f"r{n:02}", queued_tokens=100 * n) for n in range(1, 40)]
    fleet[30] = one("knows", queued_tokens=100, sent=(request,))
    policy = Policy(candidates=4)
    weighed, waits = policy.weigh(request, fleet, 0.0)
    assert {"r01", "knows", "r39"} <= {each.replica.id for each in weighed}
    assert len(weighed) <= 5
    assert len(waits) == 39
    assert max(each.cached_tokens for each in weighed) == 96


def test_what_was_sent_is_remembered() -> None:
    policy = Policy()
    spec = ReplicaSpec(models=("m",), limits=LIMITS, prefill_tokens_per_s=100.0)
    a, b = (one(name) for name in "ab")
    fleet = fakes.fleet(a, b)
    for replica in (a, b):
        policy.note(Reported(0.0, replica.id, "ready", spec))
    policy.note(Sent(0.0, asked(500, id="other"), "a", queued_tokens=500))
    decision = policy.route(asked(ttft_s=None), fleet)
    assert isinstance(decision, Route)
    assert decision.replica == "b"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("roomy=0.0", "roomy is 0.0; it must be positive"),
        ("patience_s=-1.0", "patience_s is -1.0; it must be positive"),
        ("slo_ttft_s=0.0", "slo_ttft_s is 0.0; it must be positive, or None"),
        ("wait_weight=-0.1", "wait_weight is -0.1; it must be from 0"),
        ("others_weight=-0.1", "others_weight is -0.1; it must be from 0"),
        ("candidates=1", "candidates is 1; weigh at least 2"),
    ],
)
def test_settings_without_sense_are_named(setting: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load("routing", f"millrace({setting})")

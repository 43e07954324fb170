"""Least KV: the emptiest cache by report, by what is known since, and by caution."""

from __future__ import annotations

from typing import Any

from millrace.core.fleet import Hold, ReplicaView, Route
from millrace.core.replica import Limits, Report
from millrace.policies.routing.least_kv import Policy
from millrace.testing import fakes


def _replica(id: str, free: int | None, **fields: Any) -> ReplicaView:
    report = None if free is None else Report(now_s=0.0, kv_free_tokens=free)
    return fakes.replica(id, report=report, limits=Limits(kv_blocks=100, block_tokens=10), **fields)


def _chosen(*replicas: ReplicaView, now_s: float = 1.0) -> set[str]:
    fleet = fakes.fleet(*replicas, now_s=now_s)
    decisions = [Policy().route(fakes.request(f"q{n}"), fleet) for n in range(40)]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def test_the_emptiest_cache_is_chosen_however_many_requests_it_has() -> None:
    assert _chosen(_replica("empty", 700, running=9), _replica("full", 600)) == {"empty"}


def test_what_was_sent_since_the_report_counts() -> None:
    assert _chosen(_replica("a", 700, queued_tokens=150), _replica("b", 600)) == {"b"}


def test_usage_counts_by_share_not_by_tokens() -> None:
    large = fakes.replica("large", limits=Limits(kv_blocks=1000, block_tokens=10))
    large.report = Report(now_s=0.0, kv_free_tokens=8000)
    assert _chosen(large, _replica("small", 700)) == {"large"}


def test_an_unknown_cache_is_as_full_as_the_fullest_known() -> None:
    assert _chosen(_replica("silent", None), _replica("half", 500), _replica("full", 100)) == {"half"}
    assert _chosen(_replica("silent", None), _replica("full", 100)) == {"silent", "full"}


def test_a_report_that_is_old_says_nothing() -> None:
    replicas = _replica("a", 900), _replica("b", 100)
    assert _chosen(*replicas) == {"a"}
    assert _chosen(*replicas, now_s=11.0) == {"a", "b"}


def test_of_equally_empty_caches_the_one_with_fewer_requests_is_chosen() -> None:
    assert _chosen(_replica("a", 500, running=2), _replica("b", 500, running=1)) == {"b"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")

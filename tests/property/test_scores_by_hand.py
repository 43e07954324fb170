"""Loads and scores written for speed are what they are when written for reading, whatever the fleet."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.control import Controller, ControlSettings
from millrace.core.event import Event
from millrace.core.fleet import ReplicaView
from millrace.core.load import kv_usage, kv_usages, waiting_requests
from millrace.core.replica import Limits, Report
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.dynamo_cost import Policy as DynamoCost
from millrace.policies.routing.llmd_scores import Policy as LlmdScores
from millrace.policies.routing.llumnix_freeness import Policy as LlumnixFreeness
from millrace.policies.routing.xllm_cache_aware import Policy as XllmCacheAware
from millrace.testing import strategies
from millrace.testing.cases import Case

cases = strategies.decisions(largest=8).filter(lambda case: bool(case.fleet.able(case.request)))
moments = st.sampled_from([2.0, 11.0, 20.0])  # all reports are fresh, some, none
settings_of_dynamo = st.builds(
    DynamoCost,
    overlap_credit=st.sampled_from([0.0, 0.5, 1.0]),
    credit_decay=st.sampled_from([0.0, 1.0]),
    prefill_scale=st.sampled_from([0.5, 1.0]),
    request_weight=st.sampled_from([0.0, 2.0]),
)


def _said(replica: ReplicaView, now_s: float) -> Report:
    """What it said in the last ten seconds; nothing of anything if that is nothing."""
    report = replica.report
    return report if report and report.now_s >= now_s - 10.0 else Report(now_s=now_s)


def _size(replica: ReplicaView, able: tuple[ReplicaView, ...]) -> int:
    limits = [r.spec.limits for r in (replica, *able) if r.spec.limits]
    if replica.spec.limits:
        return limits[0].kv_blocks * limits[0].block_tokens
    return min((known.kv_blocks * known.block_tokens for known in limits), default=4096 * 16)


def _beside(replica: ReplicaView, now_s: float) -> float | None:
    """The share of its memory that is taken by what is not on the books, None if that is unknown."""
    free, limits = _said(replica, now_s).kv_free_tokens, replica.spec.limits
    if free is None or limits is None:
        return None
    size = limits.kv_blocks * limits.block_tokens
    return max(0, size - free - replica.context_tokens) / size


def _usage(replica: ReplicaView, able: tuple[ReplicaView, ...], now_s: float) -> float:
    known = [share for r in able if (share := _beside(r, now_s)) is not None]
    beside = _beside(replica, now_s)
    booked = replica.context_tokens + replica.queued_tokens + replica.coming_tokens
    return booked / _size(replica, able) + (max(known, default=0.0) if beside is None else beside)


def _waiting(replica: ReplicaView, able: tuple[ReplicaView, ...], now_s: float) -> int:
    said = _said(replica, now_s).waiting
    others = [what - r.waiting for r in able if (what := _said(r, now_s).waiting) is not None]
    return max(replica.waiting, said) if said is not None else replica.waiting + max([0, *others])


def _cached(request: Request, replica: ReplicaView) -> float:
    whole_tokens = len(request.blocks) * request.block_tokens
    return replica.prefix.matched_tokens(request) / whole_tokens if whole_tokens else 0.0


@given(case=cases, now_s=moments)
def test_loads(case: Case, now_s: float) -> None:
    able = case.fleet.able(case.request)
    assert waiting_requests(able, now_s) == [_waiting(r, able, now_s) for r in able]
    assert kv_usages(able, now_s) == pytest.approx([_usage(r, able, now_s) for r in able])
    for replica in able:
        alone = _usage(replica, (replica,), now_s)
        known = _beside(replica, now_s) is not None
        assert kv_usage(replica, now_s) == (pytest.approx(alone) if known else None)


@given(case=cases, now_s=moments)
def test_scores_of_llm_d(case: Case, now_s: float) -> None:
    request, able = case.request, case.fleet.able(case.request)
    queues = [_waiting(r, able, now_s) for r in able]
    span = max(queues) - min(queues)
    expected = [
        2 * ((max(queues) - queue) / span if span else 1)
        + 2 * max(0, 1 - _usage(replica, able, now_s))
        + 3 * _cached(request, replica)
        for replica, queue in zip(able, queues, strict=True)
    ]
    assert LlmdScores().scores(request, able, now_s) == pytest.approx(expected)


@given(case=cases, now_s=moments, as_written=st.booleans())
def test_scores_of_xllm(case: Case, now_s: float, as_written: bool) -> None:
    request, able = case.request, case.fleet.able(case.request)
    queues = [_waiting(r, able, now_s) for r in able]
    expected = []
    for replica, queue in zip(able, queues, strict=True):
        cached, queued = _cached(request, replica), queue / max(1, *queues)
        if as_written:
            cached, queued = float(cached == 1), float(queued == 1)
        expected.append(cached - _usage(replica, able, now_s) - queued)
    assert XllmCacheAware(as_written=as_written).scores(request, able, now_s) == pytest.approx(expected)


@given(case=cases, policy=settings_of_dynamo)
def test_costs_of_dynamo(case: Case, policy: DynamoCost) -> None:
    request, able = case.request, case.fleet.able(case.request)
    size, least = request.block_tokens, min(r.queued_tokens for r in able)
    expected = []
    for replica in able:
        backlog = (replica.queued_tokens - least) / size / ceil(request.prompt_tokens / size)
        credit = policy.overlap_credit / (1 + policy.credit_decay * backlog)
        raw = (replica.queued_tokens + request.prompt_tokens) / size
        lacking = max(0, raw - credit * replica.prefix.matched_tokens(request) / size)
        used = (replica.context_tokens + replica.queued_tokens + replica.coming_tokens) / size
        expected.append(policy.prefill_scale * lacking + used + policy.request_weight * replica.in_flight)
    assert policy.costs(request, able) == pytest.approx(expected)


@given(history=strategies.histories())
def test_llumnix_knows_the_head_of_every_queue(history: list[Event]) -> None:
    policy: LlumnixFreeness = load("routing", "llumnix_freeness")
    controller = Controller(policy, load("queueing", "fcfs"), ControlSettings(max_held=9))
    for event in history:
        controller.on(event)
        for replica in controller.state.replicas.values():
            queued = [
                (flight.sent_s, flight.request.prompt_tokens)
                for flight in controller.state.flights.values()
                if flight.replica == replica.id and not flight.started
            ]
            heads = {tokens for sent_s, tokens in queued if sent_s == min(queued)[0]} or {0}
            limits = replica.spec.limits or Limits()
            room = limits.kv_blocks * limits.block_tokens - replica.context_tokens
            known = controller.state.flights.values()
            urgent = [f for f in known if f.replica == replica.id and f.started and f.request.priority > 0]
            room -= policy.headroom_tokens if urgent else 0
            found = policy.freeness([replica], event.now_s)[0]
            if replica.phase != "draining":
                assert found in {(room - head) / (replica.running or 1) for head in heads}

"""Routing policies written for speed answer as they do when written for reading."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from millrace.core.draw import draw, draw_below
from millrace.core.fleet import ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request
from millrace.policies.routing import least_work, prefix_affinity, two_choices
from millrace.testing import strategies
from millrace.testing.cases import Case

cases = strategies.decisions(largest=8).filter(lambda case: bool(case.fleet.able(case.request)))


def _first_token_s(request: Request, replica: ReplicaView, able: tuple[ReplicaView, ...]) -> float:
    prefills = [r.spec.prefill_tokens_per_s for r in able if r.spec.prefill_tokens_per_s]
    steps_s = [r.spec.decode_step_s for r in able if r.spec.decode_step_s]
    work = replica.queued_tokens + max(1, request.prompt_tokens - replica.prefix.matched_tokens(request))
    seconds = work / (replica.spec.prefill_tokens_per_s or min(prefills, default=1000.0))
    if replica.running:
        steps = ceil(work / (replica.spec.limits or Limits()).step_tokens)
        seconds += steps * (replica.spec.decode_step_s or max(steps_s, default=0.0))
    return seconds


@given(case=cases, seed=st.integers(0, 3))
def test_least_work_is_the_soonest_then_the_idlest_then_a_draw(case: Case, seed: int) -> None:
    request, able = case.request, case.fleet.able(case.request)
    key = {r.id: (_first_token_s(request, r, able), r.in_flight) for r in able}
    best = [r.id for r in able if key[r.id] == min(key.values())]
    expected = best[draw_below(len(best), request.id, seed)]
    assert least_work.Policy(seed=seed).route(request, case.fleet) == Route(expected)


@given(case=cases, seed=st.integers(0, 3))
def test_prefix_affinity_is_the_highest_draw_of_those_below_their_share(case: Case, seed: int) -> None:
    policy = prefix_affinity.Policy(seed=seed)
    request, able = case.request, case.fleet.able(case.request)
    share = ceil(1.25 * (1 + sum(r.in_flight for r in able)) / len(able))
    below = [r.id for r in able if r.in_flight < share]
    expected = max(below, key=lambda name: draw(policy.key(request), name, seed))
    assert policy.route(request, case.fleet) == Route(expected)


@given(case=cases, seed=st.integers(0, 3))
def test_two_choices_are_two_different_ones(case: Case, seed: int) -> None:
    request, rest = case.request, list(case.fleet.able(case.request))
    one = rest.pop(draw_below(len(rest), request.id, seed, "first"))
    other = rest[draw_below(len(rest), request.id, seed, "second")] if rest else one
    expected = min(one, other, key=lambda r: r.in_flight).id
    assert two_choices.Policy(seed=seed).route(request, case.fleet) == Route(expected)

"""Outcomes: latencies count from the scheduled arrival, and a run is summed up without losing anybody."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.outcome import Outcome, Status, Tally, measure
from millrace.core.request import Slo
from millrace.core.stats import percentile, summary

STATUSES: tuple[Status, ...] = ("completed", "refused", "failed", "cancelled")


def _outcome(**fields: object) -> Outcome:
    """A completed request: due at 10, first of 5 tokens at 11, last at 13."""
    usual = {
        "id": "q",
        "scheduled_s": 10.0,
        "status": "completed",
        "prompt_tokens": 100,
        "output_tokens": 5,
        "first_token_s": 11.0,
        "finished_s": 13.0,
    }
    return msgspec.convert({**usual, **fields}, Outcome)


def test_latencies_count_from_the_scheduled_arrival() -> None:
    found = _outcome()
    assert (found.ttft_s, found.tpot_s, found.e2e_s) == (1.0, 0.5, 3.0)


def test_what_did_not_happen_has_no_latency() -> None:
    refused = Outcome(id="q", scheduled_s=10.0, status="refused", prompt_tokens=100)
    assert (refused.ttft_s, refused.tpot_s, refused.e2e_s) == (None, None, None)


def test_an_answer_of_one_token_has_no_time_between_tokens() -> None:
    assert _outcome(output_tokens=1).tpot_s is None


def test_an_answer_cut_off_has_no_time_between_tokens() -> None:
    assert _outcome(status="failed", finished_s=None).tpot_s is None


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(), True),
        (Slo(ttft_s=1.0, tpot_s=0.5), True),
        (Slo(ttft_s=0.9), False),
        (Slo(tpot_s=0.4), False),
    ],
)
def test_objectives_are_met_up_to_their_limit(slo: Slo, met: bool) -> None:
    assert _outcome().meets(slo) is met


def test_an_answer_of_one_token_meets_any_time_between_tokens() -> None:
    assert _outcome(output_tokens=1).meets(Slo(tpot_s=0.001))


@pytest.mark.parametrize("status", ["refused", "failed", "cancelled"])
def test_only_completed_requests_meet_objectives(status: Status) -> None:
    assert not _outcome(status=status).meets(Slo())


def test_an_empty_run_measures_as_zeros() -> None:
    found = measure([], Slo())
    assert (found.requests, found.duration_s, found.goodput_rps, found.slo_attainment) == (0, 0.0, 0.0, 0.0)
    assert (found.ttft_s, found.tpot_s, found.e2e_s) == (None, None, None)


def test_a_run_is_measured_like_by_hand() -> None:
    refused = Outcome(id="late", scheduled_s=20.0, status="refused", prompt_tokens=50)
    slow = _outcome(id="slow", first_token_s=14.0, finished_s=16.0, cached_tokens=50)
    found = measure([_outcome(), slow, refused], Slo(ttft_s=2.0))
    assert (found.requests, found.completed, found.refused) == (3, 2, 1)
    assert found.duration_s == 10.0  # from the first scheduled arrival, 10, to the last end, 20
    assert (found.throughput_rps, found.throughput_tokens_per_s, found.goodput_rps) == (0.2, 1.0, 0.1)
    assert found.slo_attainment == pytest.approx(1 / 3)
    assert found.cache_hit_ratio == 0.25
    assert found.ttft_s is not None
    assert (found.ttft_s.min, found.ttft_s.mean, found.ttft_s.max) == (1.0, 2.5, 4.0)


def test_a_run_of_refusals_only_has_no_latencies_and_no_hits() -> None:
    found = measure([Outcome(id="q", scheduled_s=1.0, status="refused", prompt_tokens=9)], Slo())
    assert (found.requests, found.refused, found.duration_s) == (1, 1, 0.0)
    assert (found.throughput_rps, found.cache_hit_ratio, found.ttft_s) == (0.0, 0.0, None)


@given(st.lists(st.sampled_from(STATUSES), max_size=30))
def test_every_outcome_is_counted_once(statuses: list[Status]) -> None:
    found = measure([_outcome(id=str(n), status=s) for n, s in enumerate(statuses)], Slo())
    assert found.requests == found.completed + found.refused + found.failed + found.cancelled == len(statuses)


def test_an_outcome_survives_a_log() -> None:
    outcome = _outcome(error="none", replica="r")
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome


def _moments() -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(10.0, 20.0)


outcomes = st.builds(
    _outcome,
    status=st.sampled_from(STATUSES),
    scheduled_s=st.floats(0.0, 30.0),
    first_token_s=_moments(),
    finished_s=_moments(),
    output_tokens=st.integers(0, 9),
)


@given(st.lists(outcomes, max_size=20), st.none() | st.floats(0.0, 5.0), st.none() | st.floats(0.0, 5.0))
def test_a_tally_says_what_the_outcomes_say(
    every: list[Outcome], ttft_s: float | None, tpot_s: float | None
) -> None:
    slo = Slo(ttft_s=ttft_s, tpot_s=tpot_s)
    found, done = measure(every, slo), [o for o in every if o.status == "completed"]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        known = [value for o in done if (value := getattr(o, name)) is not None]
        assert getattr(found, name) == (summary(known) if known else None)
    if every:
        assert found.slo_attainment == sum(o.meets(slo) for o in every) / len(every)
        ends_s = [max(o.finished_s or o.scheduled_s, o.scheduled_s) for o in every]
        assert found.duration_s == max(ends_s) - min(o.scheduled_s for o in every)


def test_a_tally_can_be_asked_while_it_goes_on() -> None:
    tally = Tally(Slo())
    tally.add(_outcome())
    assert tally.measured().requests == 1
    tally.add(_outcome(first_token_s=12.0))
    found = tally.measured()
    assert found.ttft_s is not None
    assert (found.requests, found.ttft_s.p50) == (2, percentile([1.0, 2.0], 50))

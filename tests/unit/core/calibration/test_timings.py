"""What a client's timings say of the engine's steps."""

from __future__ import annotations

import pytest

from millrace.core.calibration import Point, Stream, sample, stream_of
from millrace.core.calibration.timings import prefill_steps
from millrace.core.cost import StepShape
from tests.unit.core.calibration.truth import TRUTH, answers, observed

DECODE = Point(kind="decode", streams=2, context_tokens=100)
MIXED = Point(kind="mixed", streams=2, context_tokens=100, prompt_tokens=600)


def test_a_prompt_is_cut_into_steps_and_only_the_last_emits() -> None:
    assert prefill_steps(5, 1, 3) == [
        StepShape(prefills=1, prefill_tokens=3, prefill_attended_tokens=3 * 1 + 6),
        StepShape(prefills=1, prefill_tokens=1, prefill_attended_tokens=4 + 1, emits=1),
    ]


@pytest.mark.parametrize("point", [Point(kind="prefill", prompt_tokens=1000), DECODE, MIXED])
def test_a_sample_is_worth_what_its_steps_cost(point: Point) -> None:
    found = observed(point)
    assert found is not None
    assert found.kind == point.kind
    assert sum(map(TRUTH.step_s, found.steps)) == pytest.approx(found.seconds)


def test_a_prompt_that_joins_makes_as_many_mixed_steps_as_it_has_chunks() -> None:
    found = observed(MIXED)
    assert found is not None
    assert [one.prefill_tokens for one in found.steps if one.prefills] == [510, 90]
    assert all(one.decodes == 2 for one in found.steps)


def test_streams_that_did_not_run_together_say_nothing() -> None:
    early = Stream(sent_s=0.0, tokens_s=tuple(map(float, range(10))))
    late = Stream(sent_s=0.0, tokens_s=tuple(map(float, range(8, 18))))
    assert sample(DECODE, [early, late], None, overhead_s=0.0, step_tokens=512) is None


def test_a_prompt_that_no_stream_outlasts_says_nothing() -> None:
    streams, arrival = answers(MIXED)
    assert arrival is not None
    never = Stream(sent_s=arrival.sent_s, tokens_s=(1e9,))
    before = Stream(sent_s=-1.0, tokens_s=arrival.tokens_s)
    for other in (never, before):
        assert sample(MIXED, streams, other, overhead_s=0.0, step_tokens=512) is None


def test_fewer_steps_than_the_prompt_has_chunks_say_nothing() -> None:
    streams, arrival = answers(MIXED)
    assert sample(MIXED, streams, arrival, overhead_s=0.0, step_tokens=3) is None


def test_an_answer_faster_than_the_overhead_says_nothing() -> None:
    point = Point(kind="prefill", prompt_tokens=10)
    arrival = Stream(sent_s=0.0, tokens_s=(0.01,))
    assert sample(point, [], arrival, overhead_s=0.02, step_tokens=512) is None


def test_merged_tokens_are_put_where_the_gaps_are_longest() -> None:
    found = stream_of(0.5, [1.0, 2.0, 4.0, 5.0], 5)
    assert found == Stream(sent_s=0.5, tokens_s=(1.0, 2.0, 3.0, 4.0, 5.0), merged=1)
    assert stream_of(0.5, [1.0], 3) == Stream(sent_s=0.5, tokens_s=(1.0,))


def test_the_stream_with_the_fewest_merged_tokens_counts_the_steps() -> None:
    merged = stream_of(0.0, [0.0, 4.0, 8.0], 9)
    clear = stream_of(0.0, [float(i) for i in range(9)], 9)
    found = sample(DECODE, [merged, clear], None, overhead_s=0.0, step_tokens=512)
    assert found is not None
    assert found.step_s == pytest.approx(1.0)

"""Engines that keep several resources busy at once: never dearer, never below the busiest resource."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.catalogue import device, model
from millrace.core.cost import Roofline, StepShape
from millrace.core.cost.overlapping import OVERLAPS, REACHED, Overlap, Overlapping
from millrace.core.cost.shape import later
from millrace.core.cost.waves import halves
from millrace.core.fleet_spec import parse_fleet
from millrace.core.layer_work import Mix
from millrace.core.nano_batches import search
from millrace.core.overlap import RESOURCES

WHOLE = Roofline(model("llama-2-70b"), device("a100-80g"), tensor_parallel=8)
ENGINES = {
    how: Overlapping(model("llama-2-70b"), device("a100-80g"), how, tensor_parallel=8) for how in OVERLAPS
}


@st.composite
def shapes(draw: st.DrawFn) -> StepShape:
    """Steps of decodes, of a prompt, or of both."""
    decodes, chunk = draw(st.integers(0, 1024)), draw(st.integers(0, 4096))
    cached = draw(st.integers(0, 4096))
    return StepShape(
        decodes=decodes,
        decode_context_tokens=decodes * draw(st.integers(1, 4096)),
        prefills=bool(chunk),
        prefill_tokens=chunk,
        prefill_attended_tokens=chunk * cached + chunk * (chunk + 1) // 2,
        emits=decodes,
    )


@pytest.mark.parametrize("how", OVERLAPS)
@settings(max_examples=150)
@given(shape=shapes())
def test_no_step_is_dearer_than_whole_and_none_beats_its_busiest_resource(
    how: Overlap, shape: StepShape
) -> None:
    price_s, whole_s = ENGINES[how].step_s(shape), WHOLE.step_s(shape)
    sent_s = WHOLE.exchange.start_s + shape.tokens * WHOLE.exchange.per_token_s
    computed_s = WHOLE._dense.price_s(shape.tokens)
    assert min(whole_s, max(sent_s, computed_s) if shape.tokens else 0.0) <= price_s <= whole_s


@pytest.mark.parametrize("how", OVERLAPS)
@settings(max_examples=150)
@given(shape=shapes(), step=st.integers(1, 3000))
def test_like_steps_lie_on_the_line_as_far_as_it_is_said_to_go(
    how: Overlap, shape: StepShape, step: int
) -> None:
    engine = ENGINES[how]
    first_s, gain_s, most = engine.line(shape)
    at = min(step, most - 1)
    assert engine.step_s(later(shape, at)) == pytest.approx(first_s + at * gain_s, rel=1e-9, abs=1e-12)


def test_a_line_bends_where_something_else_becomes_longest() -> None:
    engine, shape = ENGINES["nanoflow"], StepShape(1024, 1024 * 100, emits=1024)
    ends = list(accumulate([0] * 4, lambda at, _: at + engine.line(later(shape, at))[2]))
    assert ends[1] < 100_000
    gains = [engine.line(later(shape, at))[1] for at in ends[:2]]
    assert all(a != pytest.approx(b) for a, b in pairwise(gains))


def test_schedules_that_are_searched_reach_what_steps_are_priced_with() -> None:
    for prompt, answer in ((512, 512), (1024, 512), (512, 1024), (2000, 2000), (128, 2048)):
        mix = Mix(step_tokens=2048, prompt_tokens=prompt, answer_tokens=answer)
        found = search(model("llama-2-70b"), device("a100-80g"), 8, mix, layers=8, together=0.8, parts=(3,))
        busy_s = dict.fromkeys(RESOURCES, 0.0)
        for operation in found.operations:
            busy_s[operation.resource] += operation.seconds
        assert max(busy_s.values()) / found.seconds >= REACHED


def test_the_halves_are_whole_tiles_of_the_least_waves() -> None:
    widths = (1280, 8192, 7168, 8192)
    assert halves(100, widths, "h100").waves == 2
    for tokens in (1024, 2048, 3000):
        split = halves(tokens, widths, "h100")
        assert split.first % 128 == 0
        assert split.waves >= 1
    assert halves(4096, widths, "h100").waves < halves(1024, widths, "h100").waves
    assert halves(2048, widths, "l40s").first == 1024
    assert halves(2048, widths, "l40s").waves == 1


def test_a_small_step_would_be_dearer_in_parts_and_is_left_whole() -> None:
    small = StepShape(8, 800, emits=8)
    for engine in ENGINES.values():
        assert engine.overlapped_s(small) > engine.step_s(small) == WHOLE.step_s(small)


def test_a_fleet_says_how_its_engines_overlap() -> None:
    (group,) = parse_fleet("1x a100-80g llama-2-70b tp=8 overlap=nanoflow")
    assert isinstance(group.roofline, Overlapping)
    assert "overlap not measured" in group.roofline.expected_error
    assert group.roofline.own_s(StepShape()) == 0


@pytest.mark.parametrize(
    ("fleet", "complaint"),
    [
        ("1x a100-80g mixtral-8x7b tp=2 overlap=nanoflow", "mixtral-8x7b has experts"),
        ("1x a100-80g llama-3-8b overlap=tokenweave", "give it tp=2"),
        ("1x a100-80g llama-3-8b overlap=nano", "did you mean 'nanoflow'"),
    ],
)
def test_an_overlap_that_is_not_priced_is_refused(fleet: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_fleet(fleet)

from __future__ import annotations

from operator import mul

import pytest
from msgspec.structs import astuple, replace

from millrace.core.cost import AttentionFit, AttentionGrid, Skew, StepShape, fit_attention
from millrace.core.cost.attention_fit import DecodeTerms, MixedTerms, shape_of
from millrace.core.cost.shape import ENDLESS

DECODE = DecodeTerms(1e-5, 2e-7, 3e-9)
MIXED = MixedTerms(2e-5, 1e-8, 2e-8, 3e-11, 4e-7, 5e-9, 6e-9, 7e-10)
TRUE = AttentionFit(decode=DECODE, mixed=MIXED)
BATCHES = [(0, 0, n, each) for n in (1, 2, 4, 8, 64) for each in (16, 100, 1000)]
BATCHES += [
    (c, k, n, e) for c in (16, 100, 512) for k in (0, 50, 1000) for n in (1, 8, 64) for e in (16, 100, 1000)
]
BATCHES += [(c, k, 0, 0) for c in (16, 100, 512) for k in (0, 50, 1000)]


def test_eleven_coefficients_are_found_again() -> None:
    found = fit_attention({batch: TRUE.attention_s(shape_of(batch)) for batch in BATCHES})
    assert astuple(found.decode) == pytest.approx(astuple(DECODE), rel=1e-3)
    assert astuple(found.mixed) == pytest.approx(astuple(MIXED), rel=1e-2)
    assert found.error is not None
    assert found.error.mean < 1e-4
    assert found.error.fitted + found.error.held_out == len(BATCHES)
    assert "attention fitted, mean 0.0%, 95th percentile 0.0% off on 21 batches" in found.expected_error


def test_a_batch_costs_the_sum_of_its_work() -> None:
    shape = StepShape(3, 600, 1, 100, 100 * 50 + 5050, 3)
    work = (1, 100, 50, 10_050, 3, 600, 200, 300)
    assert TRUE.attention_s(shape) == pytest.approx(sum(map(mul, astuple(MIXED), work)))
    assert TRUE.attention_s(StepShape(3, 600)) == pytest.approx(1e-5 + 3 * 2e-7 + 600 * 3e-9)
    alone = StepShape(prefills=1, prefill_tokens=10, prefill_attended_tokens=55)
    assert TRUE.attention_s(alone) == pytest.approx(2e-5 + 10 * 1e-8 + 55 * 3e-11)


def test_unequal_decodes_count_as_somewhat_longer() -> None:
    skewed = replace(TRUE, alpha=0.1)
    shape = StepShape(4, 400, decode_longest_tokens=300, decode_shortest_tokens=10)
    assert skewed.attention_s(shape) == pytest.approx(TRUE.attention_s(StepShape(4, 480)))
    assert skewed.attention_s(StepShape(4, 400)) == TRUE.attention_s(shape)
    assert (skewed.needs_lengths, TRUE.needs_lengths) == (True, False)


def test_skew_that_was_measured_is_kept_and_none_is_made_up() -> None:
    seconds = {batch: TRUE.attention_s(shape_of(batch)) for batch in BATCHES}
    assert fit_attention(seconds, Skew(default=0.05)).alpha == 0.05
    assert fit_attention(seconds, Skew(default=-0.05)).alpha == 0
    assert fit_attention(seconds).alpha == 0


def test_the_price_never_bends() -> None:
    assert TRUE.straight(StepShape(2, 10), StepShape(2, 12)) == ENDLESS


def test_an_error_that_was_not_measured_is_not_claimed() -> None:
    assert TRUE.expected_error == "attention fitted, its error not measured"


@pytest.mark.parametrize("keep", [lambda b: not b[0], lambda b: b[0]])
def test_too_few_batches_are_refused(keep: object) -> None:
    assert callable(keep)
    with pytest.raises(ValueError, match=r"attention was timed for \d+ batches of decodes and \d+ others"):
        fit_attention({batch: 1.0 for batch in BATCHES if keep(batch)})


def test_a_measured_shape_is_priced_as_measured() -> None:
    grid = AttentionGrid({batch: TRUE.attention_s(shape_of(batch)) for batch in BATCHES})
    for batch in BATCHES:
        assert grid.attention_s(shape_of(batch)) == pytest.approx(grid.seconds[batch])

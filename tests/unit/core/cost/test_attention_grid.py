from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.cost import AttentionGrid, Bins, Skew, StepShape
from millrace.core.cost.attention_fit import shape_of
from millrace.core.cost.attention_grid import Batch, cached_each
from millrace.core.cost.shape import ENDLESS

CHUNKS, CACHED, DECODES, LENGTHS = (16, 32, 128), (0, 64, 256), (1, 2, 4, 8), (16, 64, 256, 1024)


def true_s(batch: Batch) -> float:
    """Linear in tokens and in what each looks at, and more for decodes that share a step with a prompt."""
    chunk, cached, decodes, each = batch
    if not chunk:
        return 5 + decodes * (1 + 0.01 * each)
    return 20 + chunk * (1 + 0.1 * (cached + (chunk + 1) / 2)) * (1 + 0.02 * decodes * each)


ALONE = {(0, 0, n, each): true_s((0, 0, n, each)) for n in DECODES for each in LENGTHS}
PROMPTS = {(c, k, 0, 0): true_s((c, k, 0, 0)) for c in CHUNKS for k in CACHED}
MIXED = {(c, k, n, e): true_s((c, k, n, e)) for c in CHUNKS for k in CACHED for n in DECODES for e in LENGTHS}
GRID = AttentionGrid(ALONE | PROMPTS | MIXED)


@pytest.mark.parametrize(
    "batch",
    [
        (0, 0, 2, 64),
        (0, 0, 3, 100),
        (0, 0, 12, 2000),
        (16, 64, 0, 0),
        (20, 100, 0, 0),
        (200, 300, 0, 0),
        (32, 0, 4, 64),
        (96, 0, 4, 64),
        (100, 70, 3, 400),
        (200, 500, 20, 3000),
    ],
)
def test_what_is_linear_in_each_property_is_priced_exactly(batch: Batch) -> None:
    assert GRID.attention_s(shape_of(batch)) == pytest.approx(true_s(batch))


def test_a_chunk_smaller_than_all_measured_costs_what_the_smallest_does() -> None:
    assert GRID.attention_s(shape_of((5, 0, 2, 64))) == pytest.approx(true_s((16, 0, 2, 64)), rel=1e-9)


def test_several_prompts_count_as_one_with_as_many_pairs() -> None:
    pairs = {(c, k, 0, 0): 1.0 + c * k + c * (c + 1) / 2 for c in CHUNKS for k in CACHED}
    grid = AttentionGrid(ALONE | pairs)
    halves = StepShape(prefills=2, prefill_tokens=128, prefill_attended_tokens=2 * 64 * 65 // 2)
    assert cached_each(halves) == -32
    assert grid.attention_s(halves) == pytest.approx(1 + 64 * 65)
    assert grid.attention_s(StepShape(0, 0, 128, 128, 128, 128)) == pytest.approx(1 + 128)
    free = AttentionGrid(ALONE | pairs | {(128, 0, 0, 0): 0.5})
    assert free.attention_s(halves) == 0  # never below


def test_pairs_beyond_a_single_measured_cache_cost_what_it_does() -> None:
    narrow = AttentionGrid(ALONE | {(16, 0, 0, 0): 3.0, (32, 0, 0, 0): 5.0})
    assert narrow.attention_s(shape_of((16, 100, 0, 0))) == 3.0
    assert narrow.attention_s(StepShape(0, 0, 2, 16, 16, 2)) == 3.0


def test_a_grid_may_have_holes() -> None:
    """Chunks of 32 were timed with long decodes only."""
    holes = {batch: s for batch, s in MIXED.items() if batch[0] != 32 or batch[3] >= 256}
    grid = AttentionGrid(ALONE | PROMPTS | holes)
    assert grid.attention_s(shape_of((32, 64, 2, 100))) == pytest.approx(true_s((32, 64, 2, 100)))


@pytest.mark.parametrize("missing", [ALONE, PROMPTS | MIXED])
def test_a_grid_needs_decodes_alone_and_prompts(missing: dict[Batch, float]) -> None:
    with pytest.raises(ValueError, match="needs batches of decodes alone"):
        AttentionGrid({batch: s for batch, s in (ALONE | PROMPTS | MIXED).items() if batch not in missing})


def test_unequal_decodes_lie_between_their_mean_and_the_longest() -> None:
    skewed = AttentionGrid(GRID.seconds, Skew(default=0.25))
    equal = shape_of((0, 0, 4, 100))
    unequal = replace(equal, decode_longest_tokens=300, decode_shortest_tokens=20)
    mean_s, longest_s = true_s((0, 0, 4, 100)), true_s((0, 0, 4, 300))
    assert skewed.attention_s(equal) == pytest.approx(mean_s)
    assert skewed.attention_s(unequal) == pytest.approx(mean_s + 0.25 * (longest_s - mean_s))
    assert GRID.attention_s(unequal) == pytest.approx(mean_s)


def test_a_lone_decode_has_no_skew() -> None:
    skewed = AttentionGrid(GRID.seconds, Skew(default=0.25))
    assert skewed.attention_s(shape_of((0, 0, 1, 100))) == pytest.approx(true_s((0, 0, 1, 100)))


def decodes(n: int, each: int, longest: int = 0, shortest: int = 0) -> StepShape:
    return replace(shape_of((0, 0, n, each)), decode_longest_tokens=longest, decode_shortest_tokens=shortest)


def test_decodes_are_straight_up_to_the_next_measured_length() -> None:
    assert GRID.straight(decodes(2, 10), decodes(2, 11)) == 55
    assert GRID.straight(decodes(2, 60), decodes(2, 61)) == 5
    assert GRID.straight(decodes(2, 64), decodes(2, 65)) == 193
    assert GRID.straight(decodes(2, 300), decodes(2, 301)) == ENDLESS


def test_the_longest_decode_bends_the_price_too_and_may_change_its_kind() -> None:
    shape = decodes(2, 150, 250, 50)
    assert GRID.straight(shape, shape) == 107
    assert AttentionGrid(GRID.seconds, Skew(default=0.1)).straight(shape, shape) == 7
    kinds = Skew(default=0.1, longest=Bins((0, 252, 999), ("a", "b")), alphas={(0, "", "", "", ""): 0.2})
    assert AttentionGrid(GRID.seconds, kinds).straight(shape, shape) == 3
    assert AttentionGrid(GRID.seconds, kinds).straight(decodes(2, 150), shape) == 107


def test_a_prompt_is_straight_up_to_the_next_measured_cache() -> None:
    first, then = shape_of((16, 0, 0, 0)), shape_of((16, 16, 0, 0))
    assert GRID.straight(first, then) == 5
    assert GRID.straight(shape_of((16, 300, 0, 0)), shape_of((16, 316, 0, 0))) == ENDLESS
    assert GRID.straight(first, first) == 1
    # Between chunks of 16 and 32, whose tokens look at as many: 4 more and 4 fewer than those of 24.
    between = [shape_of((24, cached, 0, 0)) for cached in (0, 24, 48)]
    assert GRID.straight(between[0], between[1]) == 1
    assert GRID.straight(between[1], between[2]) == 1 + (64 - 28) // 24
    assert GRID.straight(shape_of((16, 0, 2, 64)), shape_of((16, 16, 2, 65))) == 1


def test_it_says_how_well_it_predicts_what_was_left_out() -> None:
    assert GRID.expected_error == (
        "attention measured; of points left out, mean 0.0% off, 95th percentile 0.0%"
    )
    bumpy = AttentionGrid({**GRID.seconds, (0, 0, 2, 64): 2 * true_s((0, 0, 2, 64))})
    assert "mean 0.0%" not in bumpy.expected_error
    poor = AttentionGrid({(0, 0, 1, 16): 1.0, (16, 0, 0, 0): 1.0})
    assert poor.expected_error.endswith("too few points to tell how well what lies between is predicted")

from __future__ import annotations

from math import inf

import pytest

from millrace.core.cost import Bins, Skew, StepShape

SKEW = Skew(
    default=0.1,
    decodes=Bins((0, 2, 4), ("few", "many")),
    rate=Bins((-0.01, 0.5, 1.01), ("low", "high")),
    longest=Bins((0, 100, 200), ("short", "long")),
    cached=Bins((-1, 0, 1000), ("none", "some")),
    alphas={(0, "few", "low", "short", "none"): 0.2, (16, "many", "high", "long", "some"): 0.3},
)


def shape(decodes: int, context: int, longest: int, shortest: int, chunk: int = 0) -> StepShape:
    return StepShape(
        decodes=decodes,
        decode_context_tokens=context,
        prefills=int(chunk > 0),
        prefill_tokens=chunk,
        decode_longest_tokens=longest,
        decode_shortest_tokens=shortest,
    )


def test_a_number_belongs_to_the_bin_whose_upper_edge_it_is() -> None:
    assert [SKEW.decodes.name(n) for n in (0, 1, 2, 3, 4, 9)] == ["few", "few", "few", "many", "many", "many"]


def test_bins_need_one_edge_more_than_names() -> None:
    with pytest.raises(ValueError, match="2 edges make 1 bins, but 2 are named"):
        Bins((0, 1), ("a", "b"))


def test_the_kind_of_a_batch_decides() -> None:
    assert SKEW.alpha(shape(2, 100, 90, 10), 0) == 0.2  # the mean is half way: still low
    assert SKEW.alpha(shape(4, 600, 190, 10, chunk=16), 5) == 0.3


def test_a_kind_that_was_not_timed_gets_the_default() -> None:
    assert SKEW.alpha(shape(2, 150, 90, 10), 0) == 0.1
    assert SKEW.alpha(shape(4, 600, 190, 10, chunk=17), 5) == 0.1


def test_equal_lengths_and_unknown_ones_have_no_skew() -> None:
    assert SKEW.alpha(shape(2, 100, 50, 50), 0) == 0
    assert SKEW.alpha(shape(2, 100, 0, 0), 0) == 0


def test_a_growing_decode_stays_of_a_kind_up_to_the_edge() -> None:
    assert [SKEW.room(longest) for longest in (1, 99, 100, 101, 200, 201)] == [99, 1, 0, 99, 0, inf]
    assert Skew(default=0.1).room(5) == inf


def test_the_kind_is_the_same_to_the_last_bit_while_all_grow() -> None:
    # 3 of 10 above the shortest: as a quotient of means it would wander around an edge at 0.3.
    edge = Skew(
        default=0.0, rate=Bins((0, 0.3, 1), ("low", "high")), alphas={(0, "any", "low", "any", "any"): 1}
    )
    grown = [shape(10, 10 * (7 + n) + 3, 8 + n, 7 + n) for n in range(1000)]
    assert {edge.alpha(each, 0) for each in grown} == {1}

"""Lengths of answers are counted exactly, and only so many of them are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.core.answer_lengths import BUDGET_TOKENS, SATURATIONS, AnswerLengths

FIXTURE = (1, 200, 999, 1000, 1001, 2999, 3000, 4999, 5000, 5000)


def of(tokens: list[int], remembered: int = 100) -> AnswerLengths:
    lengths = AnswerLengths(remembered)
    for one in tokens:
        lengths.see(one)
    return lengths


def test_saturation_and_distribution_of_a_fixture_are_exact() -> None:
    lengths = of(list(FIXTURE))
    assert [lengths.saturation(tokens) for tokens in SATURATIONS] == [0.7, 0.4, 0.2]
    assert [lengths.ecdf(tokens) for tokens in (0, 1, 999, 1000, 4999, BUDGET_TOKENS)] == [
        0,
        0.1,
        0.3,
        0.4,
        0.8,
        1,
    ]
    assert (AnswerLengths(1).saturation(1), AnswerLengths(1).ecdf(1)) == (0, 0)


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.integers(1, 20),
    st.integers(0, 31),
    st.floats(0.01, 1),
)
def test_what_is_kept_is_the_last_so_many_answers(
    tokens: list[int], remembered: int, at: int, share: float
) -> None:
    lengths, last = of(tokens, remembered), tokens[-remembered:]
    assert len(lengths) == len(last)
    assert lengths.below(at) == sum(one < at for one in last)
    if last:
        assert lengths.saturation(at) == sum(one >= at for one in last) / len(last)
        assert lengths.ecdf(at) == sum(one <= at for one in last) / len(last)
    if short := [one for one in last if one < at]:
        found = lengths.quantile(share, below=at)
        assert found == min(x for x in short if sum(y <= x for y in short) >= share * len(short) - 1e-9)

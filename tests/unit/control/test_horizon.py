"""How far a cache reaches back is learned from what was found of prompts that were known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.control.horizon import PRIOR, UNKNOWN, Horizon, Trail


def _prompt(age_tokens: int, known_tokens: int = 1000, *, pending_tokens: int = 0) -> Trail:
    return Trail(((known_tokens, age_tokens),), pending_tokens)


def _learned(*samples: tuple[Trail, int], assumed: int | None = None) -> Horizon:
    horizon = Horizon()
    if assumed is not None:
        horizon.assume(assumed)
    for trail, found_tokens in samples:
        horizon.learn(trail, found_tokens, 16)
    return horizon


def test_nothing_is_known_at_first_and_a_single_miss_says_nothing() -> None:
    assert _learned().tokens == UNKNOWN
    assert _learned((_prompt(5000), 0), (_prompt(5000), 0)).tokens == UNKNOWN


def test_prompts_that_are_missed_again_and_again_show_where_the_cache_ends() -> None:
    assert _learned(*[(_prompt(5000), 0)] * 3).tokens == 5000


def test_of_a_prompt_that_lost_its_end_both_parts_tell() -> None:
    assert _learned(*[(_prompt(5000), 400)] * 3).tokens == 5400


def test_a_prompt_of_several_ages_is_looked_at_piece_by_piece() -> None:
    trail = Trail(((400, 50), (800, 3000), (1200, 9000)))
    assert _learned(*[(trail, 800)] * 3).tokens == 9800
    assert _learned(*[(trail, 600)] * 3).tokens == 3600
    assert _learned(*[(trail, 1200)] * 9).tokens == UNKNOWN


def test_a_prompt_that_may_not_have_been_computed_yet_is_no_witness_when_missed() -> None:
    assert _learned(*[(_prompt(5000, pending_tokens=5000), 0)] * 9).tokens == UNKNOWN
    assert _learned(*[(_prompt(5000, pending_tokens=4999), 0)] * 9).tokens == 5000


@pytest.mark.parametrize("found_tokens", [875, 984, 1000, 4000])
def test_engines_round_so_little_less_is_no_miss_and_more_is_no_news(found_tokens: int) -> None:
    assert _learned(*[(_prompt(5000), found_tokens)] * 9).tokens == UNKNOWN


def test_what_is_assumed_holds_until_answers_contradict_it_either_way() -> None:
    assert _learned(assumed=7000).tokens == 7000
    assert _learned(*[(_prompt(5000), 0)] * 3, assumed=7000).tokens == 5000
    assert _learned(*[(_prompt(9000), 1000)] * 3, assumed=7000).tokens == 10000
    horizon = _learned(*[(_prompt(5000), 0)] * 3)
    horizon.assume(5100)
    assert horizon.tokens == 5000
    horizon.assume(4000)
    assert horizon.tokens == 4000


samples = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), min_size=1, max_size=80)


@given(samples=samples, assumed=st.none() | st.integers(0, 200))
def test_whenever_it_changes_it_contradicts_as_few_samples_as_any_other_age(
    samples: list[tuple[int, int]], assumed: int | None
) -> None:
    horizon = _learned(assumed=assumed)
    for age, found_tokens in samples:
        before = horizon.tokens
        horizon.learn(_prompt(age, 100), found_tokens, 1)
        if horizon.tokens != before:
            fewest = min(map(horizon.contradicting, range(300)))
            allowed = PRIOR if horizon.tokens == (UNKNOWN if assumed is None else assumed) else 0
            assert horizon.contradicting(horizon.tokens) <= fewest + allowed


@given(st.integers(2000, 9000), st.lists(st.integers(0, 20_000), min_size=30, max_size=60))
def test_a_tenth_of_prompts_that_are_missed_for_other_reasons_does_not_hide_the_horizon(
    reach: int, ages: list[int]
) -> None:
    ages += range(reach - 1500, reach + 1500, 50)
    horizon = _learned(
        *((_prompt(age, 100), 0 if age >= reach or n % 10 == 9 else 100) for n, age in enumerate(ages))
    )
    assert horizon.tokens == UNKNOWN or reach - 1000 <= horizon.tokens <= reach + 1000

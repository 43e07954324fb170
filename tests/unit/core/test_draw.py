"""Draws belong to names: equal everywhere, and spread evenly."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from millrace.core.draw import draw, draw_below, draw_each, draw_least


def test_the_same_names_draw_the_same_number_in_every_version() -> None:
    assert draw("request", "replica", 0) == 15557162682342433200


def test_the_same_names_draw_the_same_number_in_another_process() -> None:
    code = "from millrace.core.draw import draw; print(draw('q', 'r', 7))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == draw("q", "r", 7)


def test_the_order_and_the_borders_of_names_matter() -> None:
    drawn = [draw("a", "b"), draw("b", "a"), draw("ab"), draw("a", "b", ""), draw("", "a", "b")]
    assert len(set(drawn)) == len(drawn)


def test_numbers_and_their_text_are_the_same_name() -> None:
    assert draw("q", 1) == draw("q", "1")


def test_draws_below_a_limit_are_spread_evenly() -> None:
    found = Counter(draw_below(4, "q", n) for n in range(4000))
    assert set(found) == {0, 1, 2, 3}
    assert all(900 < number < 1100 for number in found.values())


def test_a_draw_below_one_is_zero() -> None:
    assert draw_below(1, "whatever") == 0


@given(
    first=st.integers() | st.text(st.characters(codec="utf-8")),
    names=st.lists(st.text(st.characters(codec="utf-8"))),
    last=st.integers(),
)
def test_drawing_for_each_name_is_drawing_many_times(first: object, names: list[str], last: int) -> None:
    assert draw_each(first, names, last) == [draw(first, name, last) for name in names]


def test_the_least_is_found_and_of_equals_every_one_is_drawn() -> None:
    assert draw_least([3, 1, 2], "q") == 1
    assert {draw_least([1, 0, 0, 2, 0], n) for n in range(40)} == {1, 2, 4}
    assert draw_least([(0, 1), (0, 1)], "q", 7) == draw_below(2, "q", 7)

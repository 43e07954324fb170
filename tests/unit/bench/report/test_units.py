"""Numbers as they are read."""

from __future__ import annotations

import pytest

from millrace.bench.report import units


def plain(text: str) -> str:
    return text.replace(units.NBSP, " ").replace(units.MINUS, "-").replace(units.MISSING, "?")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 ms"),
        (0.0000412, "0.0412 ms"),
        (0.0841, "84.1 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.236, "1.24 s"),
        (152.4, "152 s"),
        (12_345.6, "12,346 s"),
    ],
)
def test_durations_have_three_digits_and_the_fitting_unit(seconds: float | None, text: str) -> None:
    assert plain(units.duration(seconds)) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0"), (0.05, "50 ms"), (0.0025, "2.5 ms"), (20, "20 s")])
def test_ticks_are_short(seconds: float, text: str) -> None:
    assert plain(units.tick(seconds)) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "?"),
        (0, "0 %"),
        (1, "100 %"),
        (0.634, "63 %"),
        (0.0412, "4.1 %"),
        (0.9951, "99.5 %"),
        (1.5, "150 %"),
    ],
)
def test_shares_are_finer_where_it_matters(ratio: float | None, text: str) -> None:
    assert plain(units.share(ratio)) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "?"), (0.055, "+5.5 %"), (-0.1234, "-12 %"), (0.0, "+0.0 %"), (-0.0996, "-10 %")],
)
def test_errors_have_a_sign(ratio: float | None, text: str) -> None:
    assert plain(units.signed_share(ratio)) == text


def test_differences_of_shares_are_points() -> None:
    assert plain(units.signed_points(-0.012)) == "-1.2 pt"
    assert plain(units.signed_points(None)) == "?"


def test_a_column_shows_three_digits_of_its_largest_value() -> None:
    assert units.column_decimals([0.5, None, 9.0]) == 2
    assert units.column_decimals([11.5, 2.0]) == 1
    assert units.column_decimals([2191.0, 3.0]) == 0
    assert units.column_decimals([None]) == 2
    assert units.fixed(None, 2) == units.MISSING
    assert plain(units.fixed(-2191.44, 1)) == "-2,191.4"

"""How factors and durations are read."""

from __future__ import annotations

import pytest
import typer

from millrace.cli.options import duration_s, factor, read


@pytest.mark.parametrize(
    ("text", "found"), [("x2", 2.0), ("0.5x", 0.5), ("3", 3.0), (1.0, 1.0), (1e-05, 1e-5)]
)
def test_a_factor_may_have_an_x(text: object, found: float) -> None:
    assert factor(text) == found


@pytest.mark.parametrize("text", ["x0", "fast", "-1", "", "1e999"])
def test_a_factor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no factor; write a number above 0"):
        factor(text)


def test_minutes_may_be_written_out() -> None:
    assert duration_s("2min") == duration_s("2m") == 120.0


def test_an_error_names_the_option_and_nothing_said_is_nothing() -> None:
    assert read("--think", duration_s, None) is None
    assert read("--think", duration_s, "2s") == 2.0
    with pytest.raises(ValueError, match=r"^--think: cannot read the duration '2'"):
        read("--think", duration_s, "2")

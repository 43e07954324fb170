"""Tables that fit their terminal."""

from __future__ import annotations

from millrace.cli.simulating.results import laid_out

LINES = [["policy", "requests", "TTFT"], ["least_work", "300", "0.1"]]


def test_a_table_that_fits_has_a_line_for_each_policy() -> None:
    assert laid_out(LINES, 26) == LINES


def test_a_table_that_does_not_fit_has_a_column_for_each_policy() -> None:
    assert laid_out(LINES, 25) == [("policy", "least_work"), ("requests", "300"), ("TTFT", "0.1")]

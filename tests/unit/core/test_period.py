"""Periods are over once each, by the time that is told."""

from __future__ import annotations

import pytest

from millrace.core.period import Period


def test_a_period_is_over_once() -> None:
    period = Period(10.0)
    assert [now_s for now_s in (5.0, 14.0, 15.0, 16.0, 24.0, 40.0, 41.0) if period.is_over(now_s)] == [
        15.0,
        40.0,
    ]


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan")])
def test_a_period_lasts(period_s: float) -> None:
    with pytest.raises(ValueError, match="it must be above 0"):
        Period(period_s)

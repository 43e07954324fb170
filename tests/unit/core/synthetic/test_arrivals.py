"""Arrivals keep the rate and the burstiness of each period of a trace."""

from __future__ import annotations

from itertools import islice, pairwise
from statistics import fmean, pstdev

import pytest

from millrace.core.chance import Chance
from millrace.core.synthetic.arrivals import Burst, Period, fit_periods, starts, variation_of


def times(*periods: Period, burst: Burst = "gamma", seed: int = 0) -> list[float]:
    return [t_s for t_s, _ in starts(periods, burst, Chance(seed), again=False)]


@pytest.mark.parametrize("burst", ["gamma", "weibull"])
@pytest.mark.parametrize("variation", [0.5, 1.0, 2.5])
def test_gaps_have_the_rate_and_the_variation_asked_for(burst: Burst, variation: float) -> None:
    found = times(Period(seconds=20_000, rate_per_s=1, variation=variation), burst=burst)
    gaps = [b - a for a, b in pairwise(found)]
    assert fmean(gaps) == pytest.approx(1, rel=0.05)
    assert pstdev(gaps) == pytest.approx(variation, rel=0.1)


def test_a_period_without_variation_is_a_metronome() -> None:
    found = times(Period(seconds=10, rate_per_s=2, variation=0.0))
    assert len(found) == 20
    assert all(b - a == pytest.approx(0.5) for a, b in pairwise(found))


def test_each_period_has_its_own_rate_and_quiet_ones_have_none() -> None:
    found = times(
        Period(seconds=1000, rate_per_s=1),
        Period(seconds=1000, rate_per_s=0),
        Period(seconds=1000, rate_per_s=4),
    )
    assert sum(t < 1000 for t in found) == pytest.approx(1000, rel=0.1)
    assert not [t for t in found if 1000 <= t < 2000]
    assert sum(2000 <= t < 3000 for t in found) == pytest.approx(4000, rel=0.1)
    assert found == sorted(found)


def test_periods_repeat_for_ever_when_asked_to() -> None:
    periods = [Period(seconds=1, rate_per_s=1, variation=0), Period(seconds=1, rate_per_s=3, variation=0)]
    found = list(islice(starts(periods, "gamma", Chance(0), again=True), 400))
    assert found[-1][0] == pytest.approx(200, abs=2)


def test_periods_in_which_nothing_comes_are_refused() -> None:
    with pytest.raises(ValueError, match="periods have no requests"):
        times(Period(seconds=10, rate_per_s=0), Period(seconds=0, rate_per_s=5))


def test_fitting_counts_every_period_by_itself() -> None:
    early, late = [i * 1.0 for i in range(60)], [60 + i * 0.5 for i in range(120)]
    found = fit_periods(early + late, [False] * 150 + [True] * 30, 60.0)
    assert [p.rate_per_s for p in found] == [1.0, 2.0]
    assert [p.variation for p in found] == pytest.approx([0, 0], abs=1e-9)
    assert [p.failed for p in found] == [0, 30 / 120]


def test_a_short_last_piece_is_left_out_and_a_long_one_is_a_period() -> None:
    assert len(fit_periods([0, 70], [False] * 2, 60.0)) == 1
    assert len(fit_periods([0, 95], [False] * 2, 60.0)) == 2
    assert len(fit_periods([0, 1], [False] * 2, 60.0)) == 1
    assert [p.rate_per_s for p in fit_periods([0, 1], [False] * 2, 60.0, 120.0)] == [2 / 60, 0]


def test_what_is_fitted_to_made_arrivals_is_what_they_were_made_from() -> None:
    made = times(*(Period(seconds=2000, rate_per_s=rate, variation=2.0) for rate in (1, 5)))
    found = fit_periods(made, [False] * len(made), 2000.0, 4000.0)
    assert [p.rate_per_s for p in found] == pytest.approx([1, 5], rel=0.1)
    assert [p.variation for p in found] == pytest.approx([2, 2], rel=0.15)


def test_too_few_gaps_say_nothing_of_variation() -> None:
    assert variation_of([1, 2, 3], 0.7) == 0.7
    assert variation_of([0.0] * 20, 0.7) == 0.7
    assert variation_of([1.0, 3.0] * 10, 0.7) == pytest.approx(0.5)

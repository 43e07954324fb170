"""Streams of numbers belong to names, and have the distributions they are named after."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import sqrt
from statistics import fmean, pstdev

import pytest

from millrace.core.chance import (
    Chance,
    Weighted,
    gamma_shape,
    quantiles,
    weibull_mean,
    weibull_shape,
    weibull_variation,
    zipf,
)

MANY = 20_000


def test_the_same_names_give_the_same_stream_in_every_version() -> None:
    chance = Chance("a", 1)
    assert [chance.below(1000) for _ in range(5)] == [479, 456, 399, 548, 88]
    assert Chance("a", 1).uniform() == Chance("a", "1").uniform() != Chance("b", 1).uniform()


def test_uniform_numbers_are_spread_evenly_and_never_0_or_1() -> None:
    chance = Chance("uniform")
    found = [chance.uniform() for _ in range(MANY)]
    assert 0 < min(found) < 0.001 < 0.999 < max(found) < 1
    assert fmean(found) == pytest.approx(0.5, abs=0.01)
    assert pstdev(found) == pytest.approx(1 / sqrt(12), abs=0.01)


def test_normal_numbers_have_mean_0_and_deviation_1() -> None:
    chance = Chance("normal")
    found = [chance.normal() for _ in range(MANY)]
    assert fmean(found) == pytest.approx(0, abs=0.03)
    assert pstdev(found) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("variation", [0.3, 1.0, 2.0])
def test_gamma_numbers_vary_as_much_as_asked(variation: float) -> None:
    chance, shape = Chance("gamma"), gamma_shape(variation)
    found = [chance.gamma(shape) / shape for _ in range(MANY)]
    assert fmean(found) == pytest.approx(1, rel=0.05)
    assert pstdev(found) == pytest.approx(variation, rel=0.05)


@pytest.mark.parametrize("variation", [0.3, 1.0, 2.0])
def test_weibull_numbers_vary_as_much_as_asked(variation: float) -> None:
    chance, shape = Chance("weibull"), weibull_shape(variation)
    found = [chance.weibull(shape) / weibull_mean(shape) for _ in range(MANY)]
    assert fmean(found) == pytest.approx(1, rel=0.05)
    assert pstdev(found) == pytest.approx(variation, rel=0.05)
    assert weibull_variation(shape) == pytest.approx(variation)


def test_the_weibull_distribution_of_shape_1_is_the_exponential_one() -> None:
    assert weibull_variation(1.0) == pytest.approx(1)
    assert weibull_mean(1.0) == pytest.approx(1)


def test_numbers_between_quantiles_have_these_quantiles() -> None:
    chance, knots = Chance("between"), (0.0, 1.0, 10.0)
    found = [chance.between(knots) for _ in range(MANY)]
    assert quantiles(found, 3) == pytest.approx(knots, abs=0.05)
    assert chance.between((7.0,)) == 7.0


def test_quantiles_are_evenly_spaced_and_reach_both_ends() -> None:
    assert quantiles([5, 1, 3], 5) == (1, 2, 3, 4, 5)
    assert quantiles([4], 3) == (4, 4, 4)


def test_things_are_picked_by_their_weights() -> None:
    chance, weighted = Chance("pick"), Weighted([1, 0, 3])
    found = Counter(weighted.pick(chance) for _ in range(MANY))
    assert set(found) == {0, 2}
    assert found[2] / found[0] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0]])
def test_weights_that_add_up_to_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="add up to nothing"):
        Weighted(weights)


def test_zipf_asks_for_the_first_twice_as_often_as_for_the_second() -> None:
    chance, popularity = Chance("zipf"), zipf(100, 1.0)
    found = Counter(islice(iter(lambda: popularity.pick(chance), -1), MANY))
    assert found[0] / found[1] == pytest.approx(2, rel=0.1)
    assert max(found) <= 99

"""Made lengths are like those they were fitted to, together and each by itself."""

from __future__ import annotations

from statistics import fmean

import pytest

from millrace.core.chance import Chance
from millrace.core.synthetic import distance
from millrace.core.synthetic.lengths import Lengths, fit_lengths

PAIRS = [(10 + n % 90, 5) for n in range(900)] + [(2000 + n, 800 + n % 50) for n in range(300)]


def test_prompts_and_answers_are_distributed_as_in_the_trace() -> None:
    lengths, chance = fit_lengths(PAIRS), Chance("lengths")
    made = [lengths.both(chance) for _ in range(4000)]
    assert distance([a for a, _ in made], [a for a, _ in PAIRS]) < 0.04
    assert distance([b for _, b in made], [b for _, b in PAIRS]) < 0.04


def test_long_prompts_get_the_answers_that_long_prompts_got() -> None:
    lengths, chance = fit_lengths(PAIRS), Chance("lengths")
    answers: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(2000):
        prompt, answer = lengths.both(chance)
        answers[prompt >= 2000].append(answer)
    assert set(answers[False]) == {5}
    assert fmean(answers[True]) == pytest.approx(825, abs=5)


def test_an_answer_can_be_drawn_for_a_given_prompt() -> None:
    lengths, chance = fit_lengths(PAIRS), Chance("lengths")
    assert lengths.answer_to(20, chance) == 5
    assert lengths.answer_to(2100, chance) >= 800
    assert lengths.answer_to(10**6, chance) >= 800


def test_few_requests_make_few_strata() -> None:
    assert len(fit_lengths([(1, 1), (2, 2)]).strata) == 2
    assert Lengths(fit_lengths([(7, 3)]).strata).both(Chance(0)) == (7, 3)


def test_no_answers_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no request got an answer"):
        fit_lengths([])


def test_samples_alike_have_no_distance_and_samples_apart_the_largest() -> None:
    assert distance([1, 2, 3], [3, 2, 1]) == 0
    assert distance([1, 2], [3, 4]) == 1
    assert distance([1, 2, 3, 4], [1, 2]) == 0.5
    with pytest.raises(ValueError, match="a sample is empty"):
        distance([], [1])

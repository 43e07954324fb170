"""Instructions that nobody gave."""

from __future__ import annotations

from statistics import mean

from millrace.core.synthetic.instructions import instructions


def test_a_seed_always_makes_the_same_ones_and_another_seed_others() -> None:
    first = list(instructions(50, seed=3))
    assert first == list(instructions(50, seed=3))
    assert first[:20] == list(instructions(20, seed=3))
    assert first != list(instructions(50, seed=4))


def test_lengths_depend_on_the_wording_and_within_limits_on_luck() -> None:
    made = list(instructions(600, longest=1500))
    brief = [one.answer_tokens for one in made if "briefly" in one.text]
    essays = [one.answer_tokens for one in made if "essay" in one.text]
    assert mean(essays) > 3 * mean(brief)
    assert len(set(essays)) > 10
    assert all(1 <= one.answer_tokens <= 1500 for one in made)
    sure = {one.text: one.answer_tokens for one in instructions(600, luck=0.0)}
    assert all(sure[one.text] == one.answer_tokens for one in instructions(300, luck=0.0))

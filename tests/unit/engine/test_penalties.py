"""Biases and penalties change the logits that they should, and no others."""

from __future__ import annotations

from typing import Any

import torch

from millrace.engine.penalties import adjustment
from millrace.engine.sampling import Sampling


def adjusted(
    logits: list[float], *, prompt: tuple[int, ...] = (), output: tuple[int, ...] = (), **fields: Any
) -> list[float]:
    change = adjustment(Sampling(**fields), prompt, [0])
    assert change is not None
    for token in output:
        change.accept(token)
    row = torch.tensor(logits)
    change.apply(row)
    return [round(value, 5) for value in row.tolist()]


def test_frequency_counts_how_often_a_token_was_generated_and_presence_whether() -> None:
    logits, output = [0.0, 1.0, 2.0, 3.0], (1, 1, 3)
    assert adjusted(logits, output=output, frequency_penalty=0.5) == [0.0, 0.0, 2.0, 2.5]
    assert adjusted(logits, output=output, presence_penalty=0.5) == [0.0, 0.5, 2.0, 2.5]


def test_the_repetition_penalty_also_judges_the_prompt_and_pushes_negative_logits_down() -> None:
    found = adjusted([4.0, -1.0, 2.0, 3.0], prompt=(1, 2), output=(2, 3), repetition_penalty=2.0)
    assert found == [4.0, -2.0, 1.0, 1.5]


def test_the_prompt_does_not_count_for_presence_and_frequency() -> None:
    assert adjusted([1.0, 1.0], prompt=(1,), presence_penalty=2.0, frequency_penalty=2.0) == [1.0, 1.0]


def test_a_bias_is_added_to_its_token() -> None:
    assert adjusted([1.0, 1.0, 1.0], logit_bias={1: 2.5, 2: -100.0}) == [1.0, 3.5, -99.0]


def test_tokens_that_end_are_impossible_until_min_tokens() -> None:
    assert adjusted([1.0, 1.0], output=(1,), min_tokens=2)[0] == -torch.inf
    assert adjusted([1.0, 1.0], output=(1, 1), min_tokens=2) == [1.0, 1.0]


def test_nothing_asked_for_needs_no_adjustment() -> None:
    assert adjustment(Sampling(temperature=0.5, top_k=3), [1, 2], [0]) is None

"""Tokens are drawn from the distribution asked for, and do not depend on their neighbours in the batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millrace.engine.penalties import Adjustment
from millrace.engine.sampler import sample
from millrace.engine.sampling import Sampling

VOCAB = 12


@dataclass
class Row:
    sampling: Sampling
    generated: int = 0
    adjustment: Adjustment | None = None


def logits(rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 2


def drawn(sampling: Sampling, draws: int = 4000) -> dict[int, float]:
    """How often each token comes for one row of logits."""
    tokens, _ = sample(logits().expand(draws, -1), [Row(sampling, i) for i in range(draws)])
    return {token: count / draws for token, count in Counter(tokens).items()}


def expected(kept: torch.Tensor) -> dict[int, float]:
    weights = kept / kept.sum()
    return {token: weight for token, weight in enumerate(weights.tolist()) if weight}


def test_temperature_zero_takes_the_likeliest_token() -> None:
    tokens, logprobs = sample(logits(5), [Row(Sampling(temperature=0.0))] * 5)
    assert tokens == logits(5).argmax(-1).tolist()
    assert logprobs == [None] * 5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    probabilities = expected(torch.softmax(logits()[0] / temperature, -1))
    frequencies = drawn(Sampling(temperature=temperature))
    assert all(abs(frequencies.get(token, 0) - p) < 0.03 for token, p in probabilities.items())


def test_top_k_keeps_only_the_k_likeliest() -> None:
    kept = set(logits()[0].topk(3).indices.tolist())
    assert set(drawn(Sampling(top_k=3))) == kept


def test_top_p_keeps_the_smallest_set_that_reaches_p_in_proportion() -> None:
    ordered, tokens = torch.softmax(logits()[0], -1).sort(descending=True)
    count = int((ordered.cumsum(-1) < 0.8).sum()) + 1
    kept = torch.zeros(VOCAB).scatter(0, tokens[:count], ordered[:count])
    frequencies = drawn(Sampling(top_p=0.8))
    assert frequencies.keys() == expected(kept).keys()
    assert all(abs(frequencies[token] - p) < 0.03 for token, p in expected(kept).items())


def test_min_p_rules_out_what_is_much_less_likely_than_the_likeliest() -> None:
    probabilities = torch.softmax(logits()[0], -1)
    kept = {token for token, p in enumerate(probabilities.tolist()) if p >= 0.2 * probabilities.max().item()}
    assert set(drawn(Sampling(min_p=0.2))) == kept


@pytest.mark.parametrize("filters", [{"top_p": 1e-6}, {"min_p": 1.0}, {"top_k": 1}])
def test_a_filter_that_leaves_one_token_is_greedy(filters: dict[str, Any]) -> None:
    assert set(drawn(Sampling(**filters), 50)) == {int(logits().argmax())}


def test_a_wide_nucleus_among_many_tokens_is_drawn_from_evenly() -> None:
    flat = torch.zeros(4000, 3000)
    flat[:, 1500:] = -20
    for sampling in (Sampling(top_p=0.999), Sampling(top_k=1500), Sampling(min_p=0.5)):
        tokens, _ = sample(flat, [Row(sampling, i) for i in range(4000)])
        assert max(tokens) < 1500
        assert abs(sum(token < 750 for token in tokens) / 4000 - 0.5) < 0.05


def test_logits_that_overflowed_choose_some_token_and_leave_the_others_alone() -> None:
    table = logits(2)
    table[0, 3] = torch.inf
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=2)):
        tokens, _ = sample(table, [Row(sampling), Row(sampling)])
        assert 0 <= tokens[0] < VOCAB
        assert tokens[1:] == sample(table[1:], [Row(sampling)])[0]


samplings = st.builds(
    Sampling,
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([0, 4]),
    top_p=st.sampled_from([0.6, 1.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    logprobs=st.sampled_from([None, 0, 3]),
)


@given(st.lists(st.tuples(samplings, st.integers(0, 9)), min_size=1, max_size=8))
def test_a_row_samples_the_same_alone_and_in_company(asked: list[tuple[Sampling, int]]) -> None:
    rows = [Row(sampling, position) for sampling, position in asked]
    table = logits(len(rows), seed=3)
    together = sample(table, rows)
    alone = [sample(table[i : i + 1], [row]) for i, row in enumerate(rows)]
    assert together[0] == [tokens[0] for tokens, _ in alone]
    assert [one and one.top for one in together[1]] == [
        logprobs[0] and logprobs[0].top for _, logprobs in alone
    ]


def test_other_seeds_and_positions_draw_other_tokens() -> None:
    table = torch.zeros(64, 1000)
    by_seed, _ = sample(table, [Row(Sampling(seed=i)) for i in range(64)])
    by_position, _ = sample(table, [Row(Sampling(), i) for i in range(64)])
    assert len(set(by_seed)) > 50
    assert len(set(by_position)) > 50


def test_logprobs_are_the_models_own_whatever_changes_the_choice() -> None:
    sampling = Sampling(temperature=0.3, top_k=1, logit_bias={4: 100.0}, logprobs=2)
    tokens, (found,) = sample(logits(), [Row(sampling, adjustment=Adjustment(sampling, [], []))])
    likely = torch.log_softmax(logits()[0], -1)
    assert tokens == [4]
    assert found is not None
    assert found.logprob == pytest.approx(likely[4].item(), abs=1e-6)
    assert [token for token, _ in found.top] == likely.topk(2).indices.tolist()

"""Chooses the next token of every sequence in a batch.

A draw inverts the cumulative distribution at a number in [0, 1) that belongs to (seed, position), so a
sequence's tokens depend neither on its neighbours in the batch nor on having been preempted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from millrace.core.draw import draw
from millrace.engine.penalties import Adjustment
from millrace.engine.sampling import Logprob, Sampling


class Sampled(Protocol):
    """A sequence that wants its token number `generated` (from 0)."""

    @property
    def sampling(self) -> Sampling: ...
    @property
    def adjustment(self) -> Adjustment | None: ...
    @property
    def generated(self) -> int: ...


def sample(logits: Tensor, sequences: Sequence[Sampled]) -> tuple[list[int], list[Logprob | None]]:
    """Choose a token for each row of `logits` (sequences, vocab), and its log probability where asked for."""
    logits = logits.float()
    adjusted = _adjusted(logits, sequences)
    chosen = adjusted.argmax(-1)
    for choose, rows in _draws(sequences):
        where = torch.tensor(rows, device=logits.device)
        chosen[where] = choose(adjusted[where], [sequences[row] for row in rows])
    tokens: list[int] = chosen.tolist()
    return tokens, _logprobs(logits, tokens, sequences)


def _adjusted(logits: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    changes = [(row, one.adjustment) for row, one in enumerate(sequences) if one.adjustment]
    if changes:
        logits = logits.clone()
    for row, adjustment in changes:
        adjustment.apply(logits[row])
    return logits


Draw = Callable[[Tensor, Sequence[Sampled]], Tensor]


def _draws(sequences: Sequence[Sampled]) -> list[tuple[Draw, list[int]]]:
    """The rows that are drawn by chance, by the way of drawing: each way orders the tokens differently."""
    ways: dict[Draw, list[int]] = {_draw_any: [], _draw_filtered: []}
    for row, one in enumerate(sequences):
        if not one.sampling.greedy:
            ways[_draw_filtered if one.sampling.filtered else _draw_any].append(row)
    return [(way, rows) for way, rows in ways.items() if rows]


def _draw_any(logits: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    heat = _column([one.sampling.temperature for one in sequences], logits)
    return _invert(torch.softmax(logits / heat, -1), sequences)


def _draw_filtered(logits: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    """Keep the likeliest tokens: by `top_k`, then by `top_p` of what that leaves, and by `min_p`."""
    asked = [one.sampling for one in sequences]
    heat = _column([one.temperature for one in asked], logits)
    ordered, tokens = torch.sort(logits / heat, descending=True, stable=True)
    counts = _column([one.top_k or logits.shape[-1] for one in asked], logits)
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    likely = torch.softmax(ordered.masked_fill(ranks >= counts, -torch.inf), -1)
    before = likely.cumsum(-1) - likely
    ruled_out = before >= _column([one.top_p for one in asked], logits)
    ruled_out[:, 0] = False
    ruled_out |= likely < likely[:, :1] * _column([one.min_p for one in asked], logits)
    return tokens.gather(-1, _invert(likely.masked_fill(ruled_out, 0), sequences).unsqueeze(-1)).squeeze(-1)


def _invert(weights: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    """Draw an index from each row of weights (sequences, choices), which need not sum to one."""
    heights = weights.cumsum(-1, dtype=torch.float64)
    # 53 bits are what a double holds below one: the height drawn is always below the highest.
    luck = [(draw(one.sampling.seed, one.generated) >> 11) / 2**53 for one in sequences]
    height = torch.tensor(luck, dtype=torch.float64, device=weights.device).unsqueeze(-1) * heights[:, -1:]
    return torch.searchsorted(heights, height, right=True).squeeze(-1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(-1)


def _logprobs(logits: Tensor, tokens: Sequence[int], sequences: Sequence[Sampled]) -> list[Logprob | None]:
    found: list[Logprob | None] = [None] * len(sequences)
    rows = [row for row, one in enumerate(sequences) if one.sampling.logprobs is not None]
    if rows:
        likely = torch.log_softmax(logits[rows], -1)
        most = max(sequences[row].sampling.logprobs or 0 for row in rows)
        best, ids = (part.tolist() for part in likely.topk(most, -1))
        for i, row in enumerate(rows):
            count = sequences[row].sampling.logprobs or 0
            top = tuple(zip(ids[i][:count], best[i][:count], strict=True))
            found[row] = Logprob(tokens[row], likely[i, tokens[row]].item(), top)
    return found

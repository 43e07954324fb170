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

# How many of the likeliest tokens are looked at first; filters rarely keep more.
FIRST_LOOK = 64
# A token outside the nucleus comes with probability 1 - top_p; after this many, the nucleus is listed.
TRIES = 6


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
    for way, rows in _by_way(sequences):
        where, asked = torch.tensor(rows, device=logits.device), [sequences[row] for row in rows]
        heat = _column([one.sampling.temperature for one in asked], logits)
        chosen[where] = way(torch.softmax(adjusted[where] / heat, -1), asked)
    tokens: list[int] = chosen.tolist()
    return tokens, _logprobs(logits, tokens, sequences)


def _adjusted(logits: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    changes = [(row, one.adjustment) for row, one in enumerate(sequences) if one.adjustment]
    if changes:
        logits = logits.clone()
    for row, adjustment in changes:
        adjustment.apply(logits[row])
    return logits


Way = Callable[[Tensor, Sequence[Sampled]], Tensor]


def _by_way(sequences: Sequence[Sampled]) -> list[tuple[Way, list[int]]]:
    """The rows that are drawn by chance, by the way of drawing. A row's own parameters decide its way."""
    ways: dict[Way, list[int]] = {_invert: [], _draw_in_nucleus: [], _draw_listed: []}
    for row, one in enumerate(sequences):
        asked = one.sampling
        if asked.greedy:
            continue
        if asked.top_k:
            ways[_draw_listed].append(row)
        elif asked.top_p < 1 or asked.min_p:
            ways[_draw_in_nucleus].append(row)
        else:
            ways[_invert].append(row)
    return [(way, rows) for way, rows in ways.items() if rows]


def _invert(weights: Tensor, sequences: Sequence[Sampled], attempt: int = 0) -> Tensor:
    """Draw an index from each row of weights (sequences, choices), which need not sum to one."""
    heights = weights.cumsum(-1, dtype=torch.float64)
    # 53 bits are what a double holds below one: the height drawn is always below the highest.
    luck = [(draw(one.sampling.seed, one.generated, attempt) >> 11) / 2**53 for one in sequences]
    height = torch.tensor(luck, dtype=torch.float64, device=weights.device).unsqueeze(-1) * heights[:, -1:]
    drawn = torch.searchsorted(heights, height, right=True).squeeze(-1)
    # Weights that overflowed to NaN have no height at all; one bad request must not stop the others.
    return drawn.clamp(max=weights.shape[-1] - 1)


def _draw_in_nucleus(likely: Tensor, sequences: Sequence[Sampled], attempt: int = 0) -> Tensor:
    """Draw by `top_p` and `min_p` without sorting: draw among all, and again if that one is ruled out."""
    if attempt == TRIES:
        return _draw_listed(likely, sequences)
    drawn = _invert(likely, sequences, attempt)
    least = likely.gather(-1, drawn.unsqueeze(-1))
    likelier = likely.masked_fill(likely <= least, 0).sum(-1, keepdim=True)
    missed = likelier >= _column([one.sampling.top_p for one in sequences], likely)
    missed |= least < likely.amax(-1, keepdim=True) * _column(
        [one.sampling.min_p for one in sequences], likely
    )
    rows = missed.squeeze(-1).nonzero().squeeze(-1)
    if len(rows):
        asked = [sequences[row] for row in rows.tolist()]
        drawn[rows] = _draw_in_nucleus(likely[rows], asked, attempt + 1)
    return drawn


def _draw_listed(likely: Tensor, sequences: Sequence[Sampled]) -> Tensor:
    """Draw among the likeliest tokens in order, listing no more than it takes to rule out the rest."""
    vocab, width = likely.shape[-1], 1 + max(FIRST_LOOK, *(one.sampling.top_k for one in sequences))
    drawn = torch.zeros(len(sequences), dtype=torch.int64, device=likely.device)
    rows = torch.arange(len(sequences), device=likely.device)
    while len(rows):
        listed, tokens = likely[rows].topk(min(width, vocab), -1)
        asked = [sequences[row] for row in rows.tolist()]
        ruled_out = _ruled_out(listed, [one.sampling for one in asked])
        choices = _invert(listed.masked_fill(ruled_out, 0), asked, TRIES)
        drawn[rows] = tokens.gather(-1, choices.unsqueeze(-1)).squeeze(-1)
        rows = rows[~ruled_out[:, -1]] if width < vocab else rows[:0]
        width *= 8
    return drawn


def _ruled_out(listed: Tensor, asked: Sequence[Sampling]) -> Tensor:
    """Which of the likeliest tokens fall to `top_k`, to `top_p` of what that leaves, or to `min_p`."""
    width = listed.shape[-1]
    count = torch.tensor([[one.top_k or width] for one in asked], device=listed.device)
    reached = listed.cumsum(-1)
    left = torch.where(count < width, reached.gather(-1, count.clamp(max=width) - 1), 1.0)
    ruled_out = reached - listed >= left * _column([one.top_p for one in asked], listed)
    ruled_out |= torch.arange(width, device=listed.device) >= count
    ruled_out |= listed < listed[:, :1] * _column([one.min_p for one in asked], listed)
    ruled_out[:, 0] = False
    return ruled_out


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

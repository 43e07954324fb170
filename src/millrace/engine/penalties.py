"""Changes to logits before sampling: biases, penalties for repetition, ends that may not come yet.

Sources: OpenAI's presence and frequency penalty (over the output), the repetition penalty of CTRL
(Keskar et al. 2019; over prompt and output), in the order in which vLLM applies them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from millrace.engine.sampling import Sampling


class Adjustment:
    """The changes that one sequence's parameters ask for, following its output token by token."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int], end_tokens: Iterable[int]) -> None:
        self._sampling = sampling
        self._ends = list(end_tokens)
        self._biased = list(sampling.logit_bias)
        self._biases = torch.tensor(list(sampling.logit_bias.values()))
        self._prompt = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._counts: dict[int, int] = {}
        self._generated = 0

    def accept(self, token: int) -> None:
        """Note a generated token."""
        self._generated += 1
        self._counts[token] = self._counts.get(token, 0) + 1

    def apply(self, logits: Tensor) -> None:
        """Change one row of logits (vocab) in place."""
        if self._biased:
            logits[self._biased] += self._biases.to(logits.device)
        if self._generated < self._sampling.min_tokens and self._ends:
            logits[self._ends] = -torch.inf
        if self._sampling.penalised:
            self._penalise(logits)

    def _penalise(self, logits: Tensor) -> None:
        sampling = self._sampling
        seen = list(self._prompt | self._counts.keys())
        if sampling.repetition_penalty != 1 and seen:
            penalised = logits[seen]
            factor = sampling.repetition_penalty
            logits[seen] = torch.where(penalised > 0, penalised / factor, penalised * factor)
        if self._counts:
            counts = torch.tensor(list(self._counts.values()), dtype=logits.dtype, device=logits.device)
            logits[list(self._counts)] -= counts * sampling.frequency_penalty + sampling.presence_penalty


def adjustment(sampling: Sampling, prompt: Iterable[int], end_tokens: Iterable[int]) -> Adjustment | None:
    """The adjustment a sequence needs, None if its logits are to be sampled as they are."""
    needed = sampling.logit_bias or sampling.min_tokens or sampling.penalised
    return Adjustment(sampling, prompt, end_tokens) if needed else None

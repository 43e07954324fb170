"""The training loop of the demo model: batches, learning-rate schedule, and validation."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from demo_model.network import Llama
from demo_model.optimizer import Adam, Muon


@dataclass(frozen=True)
class Phase:
    """Steps up to a fraction of the run, and the length of the sequences in them."""

    until: float
    sequence_tokens: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result besides the data."""

    steps: int = 1_500
    batch_tokens: int = 4_096
    phases: tuple[Phase, ...] = (Phase(0.5, 256), Phase(0.9, 512), Phase(1.0, 2_048))
    muon_rate: float = 0.03
    muon_momentum: float = 0.95
    weight_decay: float = 0.1
    adam_rate: float = 0.006
    adam_betas: tuple[float, float] = (0.9, 0.95)
    warm_up: float = 0.02
    cool_down: float = 0.6
    seed: int = 2_024

    def sequence_tokens(self, step: int) -> int:
        """The sequence length of a step."""
        return next(phase.sequence_tokens for phase in self.phases if step < phase.until * self.steps)

    def rate(self, step: int) -> float:
        """The share of the peak learning rate at a step: linear rise, plateau, linear fall to zero."""
        done = (step + 0.5) / self.steps
        return min(1.0, done / self.warm_up, (1 - done) / self.cool_down)


@dataclass(frozen=True)
class Outcome:
    """What a run measured; losses are in nats per token."""

    tokens: int
    train_loss: float
    validation_loss: float
    wall_s: float
    cpu_s: float


def batches(stream: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Yield one batch (sequences, tokens + 1) per step; each pass over the stream has a new order."""
    generator = torch.Generator().manual_seed(recipe.seed)
    starts: list[int] = []
    length = 0
    for step in range(recipe.steps):
        count = recipe.batch_tokens // recipe.sequence_tokens(step)
        if len(starts) < count or length != recipe.sequence_tokens(step):
            length = recipe.sequence_tokens(step)
            starts = _shuffled_starts(len(stream), length, generator)
        chosen, starts = starts[:count], starts[count:]
        yield torch.stack([stream[start : start + length + 1] for start in chosen])


def _shuffled_starts(total: int, length: int, generator: torch.Generator) -> list[int]:
    offset = int(torch.randint(length, (1,), generator=generator))
    starts = torch.arange(offset, total - length, length)
    return list(starts[torch.randperm(len(starts), generator=generator)].tolist())


@torch.no_grad()
def mean_loss(model: Llama, stream: Tensor, sequence_tokens: int = 512) -> float:
    """Mean loss over a stream cut into sequences, in nats per token."""
    usable = (len(stream) - 1) // sequence_tokens
    losses = [
        model.loss(stream[i * sequence_tokens : (i + 1) * sequence_tokens + 1][None]) for i in range(usable)
    ]
    return float(torch.stack(losses).mean())


def train(model: Llama, train_stream: Tensor, validation_stream: Tensor, recipe: Recipe) -> Outcome:
    """Train `model` (bfloat16) in place and measure the outcome; progress goes to stderr."""
    names = dict(model.named_parameters())
    matrices = [p for name, p in names.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in names.items() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices, momentum=recipe.muon_momentum, weight_decay=recipe.weight_decay)
    adam = Adam(others, betas=recipe.adam_betas)
    began_s, began_cpu_s, smooth = time.monotonic(), time.process_time(), 0.0
    for step, batch in enumerate(batches(train_stream, recipe)):
        loss = model.loss(batch)
        torch.autograd.backward(loss)
        muon.step(recipe.muon_rate * recipe.rate(step))
        adam.step(recipe.adam_rate * recipe.rate(step))
        model.zero_grad()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 49:
            wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
            print(f"step {step + 1} loss {smooth:.3f} wall {wall_s:.0f} s cpu {cpu_s:.0f} s", file=sys.stderr)
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    validation = mean_loss(model, validation_stream)
    return Outcome(recipe.steps * recipe.batch_tokens, smooth, validation, wall_s, cpu_s)

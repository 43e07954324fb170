"""Writes the demo model's card from measured values."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from demo_model.network import Shape
from demo_model.samples import TEMPERATURE
from demo_model.training import Outcome, Recipe

TEMPLATE = Path(__file__).with_name("card_template.md")


@dataclass(frozen=True)
class Facts:
    """What the script counted and measured; losses are in nats per token."""

    files: int
    source_bytes: int
    held_out: list[str]
    held_out_bytes: int
    chats: int
    chat_tokens: int
    stream_tokens: int
    validation_tokens: int
    parameters: int
    long_loss: float
    samples: list[tuple[str, str]]


def card(shape: Shape, recipe: Recipe, outcome: Outcome, facts: Facts) -> str:
    """Return the model card, in Markdown."""
    bytes_per_token = facts.held_out_bytes / facts.validation_tokens
    return TEMPLATE.read_text("utf-8").format(
        **vars(facts)
        | {
            "held_out": ", ".join(f"`{path}`" for path in facts.held_out),
            "samples": "\n".join(_sample(prompt, text) for prompt, text in facts.samples),
        },
        shape=shape,
        recipe=recipe,
        outcome=outcome,
        python=platform.python_version(),
        torch_version=torch.__version__,
        processor=f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        chat_share=facts.chat_tokens / facts.stream_tokens,
        lengths=", ".join(str(phase.sequence_tokens) for phase in recipe.phases),
        passes=outcome.tokens / facts.stream_tokens,
        bytes_per_token=bytes_per_token,
        bits_per_byte=outcome.validation_loss / math.log(2) / bytes_per_token,
        cores=torch.get_num_threads(),
        core_s=outcome.cpu_s / torch.get_num_threads(),
        temperature=TEMPERATURE,
    )


def _sample(prompt: str, text: str) -> str:
    return f"````text\n{prompt}{text}\n````\n"

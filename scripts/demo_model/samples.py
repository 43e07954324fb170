"""Completions by the demo model, drawn with a fixed seed, for its model card."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_model.chat import ASSISTANT, END, END_OF_TEXT, USER
from demo_model.network import Llama

PROMPTS = (
    "import os\n\ndef ",
    'class Stack:\n    """A last-in, first-out list."""\n\n    def ',
    f"{USER}Hello!{END}{ASSISTANT}",
    f"{USER}Write a Python function `read_lines`: Return the lines of a file.{END}{ASSISTANT}",
)
LONGEST_TOKENS = 120
TEMPERATURE = 0.5


def sample(model: Llama, tokenizer: Tokenizer, prompt: str, seed: int) -> str:
    """Return what the model writes after `prompt`, up to its end or LONGEST_TOKENS tokens."""
    generator = torch.Generator().manual_seed(seed)
    stops = {tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)}
    ids: list[int] = list(tokenizer.encode(prompt).ids)
    written: list[int] = []
    while len(written) < LONGEST_TOKENS:
        token = _draw(model, torch.tensor([ids + written]), generator)
        if token in stops:
            break
        written.append(token)
    return str(tokenizer.decode(written))


@torch.no_grad()
def _draw(model: Llama, ids: Tensor, generator: torch.Generator) -> int:
    chances = (model(ids)[0, -1].float() / TEMPERATURE).softmax(dim=-1)
    return int(torch.multinomial(chances, 1, generator=generator))

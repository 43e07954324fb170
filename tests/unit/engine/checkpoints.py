"""Tiny random checkpoints of every family, made by transformers, and a replica that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from millrace.core.batch import BatchingPolicy
from millrace.core.replica import Limits
from millrace.engine.attention import SdpaAttention, Span
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import Generation, generation
from millrace.engine.kv import KvShape, LayerCache
from millrace.engine.model import Inputs, Model
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.replica import Replica

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def save_checkpoint(folder: Path, family: str = "Llama", **fields: Any) -> Any:
    """Write a random checkpoint into the folder and return it as transformers' own model, in float32."""
    torch.manual_seed(len(folder.name))
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **fields})
    reference = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, parameter in reference.named_parameters():
        if name.endswith(("norm.weight", ".bias")):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    reference.save_pretrained(folder)
    return reference


def prompt(tokens: int, seed: int = 0) -> list[int]:
    """A random prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(SIZES["vocab_size"], (tokens,), generator=generator).tolist()
    return ids


class Bench:
    """A replica and its executor, without a server around them."""

    def __init__(self, model: Model, *, batching: BatchingPolicy | None = None, **limits: Any) -> None:
        self.limits = Limits(**{"kv_blocks": 64, "block_tokens": 4, "context_tokens": 256, **limits})
        self.replica = Replica(self.limits, batching or Policy())
        self.executor = TorchExecutor(
            model, kv_blocks=self.limits.kv_blocks, block_tokens=self.limits.block_tokens
        )

    def add(
        self, id: str, prompt: Sequence[int], max_tokens: int, *, priority: int = 0, **options: Any
    ) -> Generation:
        """Let a sequence wait; its text is of no interest."""
        nothing = ByteDetokenizer(lambda token: b"")
        block_tokens = self.limits.block_tokens
        one = generation(id, prompt, max_tokens, detokenizer=nothing, block_tokens=block_tokens, **options)
        one.sequence.priority = priority
        self.executor.add(one)
        self.replica.add(one.sequence)
        return one

    def run(self) -> None:
        """Step until nobody is left."""
        while self.replica.step(self.executor):
            pass


def generate(
    model: Model, prompts: Sequence[Sequence[int]], max_tokens: int, **limits: Any
) -> list[list[int]]:
    """Greedy output tokens of each prompt, all running together."""
    bench = Bench(model, **limits)
    running = [bench.add(str(i), one, max_tokens) for i, one in enumerate(prompts)]
    bench.run()
    return [one.tokens[one.sequence.prompt_tokens :] for one in running]


def logits(model: Model, ids: Sequence[int]) -> torch.Tensor:
    """Logits (tokens, vocab) of every position of one prompt, computed in one step."""
    config, device = model.config, str(model.embedding.device)
    shape = KvShape(
        layers=len(model.layers), blocks=64, block_tokens=4, heads=config.kv_heads, head_size=config.head_size
    )
    table = list(range(63, 63 - -(-len(ids) // 4), -1))
    slots = np.array([table[at // 4] * 4 + at % 4 for at in range(len(ids))])
    places = torch.arange(len(ids), device=device)
    attention = SdpaAttention(shape, dtype=model.embedding.dtype, device=device)
    inputs = Inputs(
        ids=torch.tensor(ids, device=device),
        positions=places,
        rows=torch.from_numpy(shape.rows_of(slots)).to(device),
        last=places,
        attention=attention.plan([Span(0, len(ids), table)]),
    )
    caches = [LayerCache(shape, dtype=model.embedding.dtype, device=device) for _ in model.layers]
    with torch.inference_mode():
        return model.forward(inputs, caches).cpu()


def reference_tokens(reference: Any, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """What transformers generates greedily after one prompt."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        for _ in range(max_tokens):
            ids = torch.cat((ids, reference(ids).logits[:, -1:].argmax(-1)), dim=1)
    tokens: list[int] = ids[0, len(prompt) :].tolist()
    return tokens

"""Carries out a replica's steps with torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from millrace.engine.attention import Attention, SdpaAttention, Span
from millrace.engine.generation import Generation
from millrace.engine.kv import KvShape, LayerCache
from millrace.engine.model import Inputs, Model
from millrace.engine.sampler import sample
from millrace.replica.executor import Chunk, Step, StepResult


class TorchExecutor:
    """Runs a model over a paged KV cache; it owns the token ids of the sequences that were added to it."""

    def __init__(
        self, model: Model, *, kv_blocks: int, block_tokens: int, attention: Attention | None = None
    ) -> None:
        self.model = model
        self.kv_shape = KvShape(
            layers=model.config.num_hidden_layers,
            blocks=kv_blocks,
            block_tokens=block_tokens,
            heads=model.config.kv_heads,
            head_size=model.config.head_size,
        )
        dtype, device = model.embedding.dtype, str(model.embedding.device)
        self._device = device
        self._caches = [LayerCache(self.kv_shape, dtype=dtype, device=device) for _ in model.layers]
        self._attention = attention or SdpaAttention(self.kv_shape, dtype=dtype, device=device)
        self._generations: dict[str, Generation] = {}

    def add(self, generation: Generation) -> None:
        """Make a sequence known before the replica can plan it."""
        self._generations[generation.id] = generation

    def remove(self, id: str) -> None:
        """Forget a sequence; not while a step with it runs."""
        del self._generations[id]

    @torch.inference_mode()
    def run(self, step: Step) -> StepResult:
        """Compute the step, and let each sequence that emits accept the token chosen for it."""
        started = time.perf_counter()
        chunks = sorted(step.chunks, key=_attention_order)
        emitting = [self._generations[chunk.sequence.id] for chunk in chunks if chunk.emits]
        logits = self.model.forward(self._inputs(chunks), self._caches)
        tokens, logprobs = sample(logits, emitting)
        accepted = zip(emitting, tokens, logprobs, strict=True)
        ended = frozenset(one.id for one, token, logprob in accepted if one.accept(token, logprob))
        return StepResult(time.perf_counter() - started, ended)

    @property
    def dtype(self) -> str:
        """The name of the cache's number format."""
        return str(self._caches[0].pages.dtype).removeprefix("torch.")

    @property
    def block_bytes(self) -> int:
        """What one KV block is on the wire."""
        return self.kv_shape.block_bytes(self._caches[0].pages.dtype)

    @torch.inference_mode()
    def read_blocks(self, blocks: Sequence[int]) -> memoryview:
        """Copy KV blocks out, layer by layer; not while a step runs, unless none of them is written to."""
        index = self._tensor(list(blocks))
        pages = torch.stack([cache.read(index) for cache in self._caches]).cpu()
        return pages.flatten().view(torch.uint8).numpy().data

    @torch.inference_mode()
    def write_blocks(self, blocks: Sequence[int], data: bytes) -> None:
        """Overwrite KV blocks with what `read_blocks` returned elsewhere; never while a step runs."""
        shape, pages = self.kv_shape, self._caches[0].pages
        index = self._tensor(list(blocks))
        sizes = (shape.layers, len(blocks), shape.block_pages, shape.block_tokens, shape.head_size)
        given = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(pages.dtype).view(sizes)
        for cache, layer in zip(self._caches, given.to(self._device), strict=True):
            cache.replace(index, layer)

    def _inputs(self, chunks: Sequence[Chunk]) -> Inputs:
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last: list[int] = []
        size = self.kv_shape.block_tokens
        for chunk in chunks:
            places, table = range(chunk.start, chunk.start + chunk.tokens), chunk.sequence.table
            ids += self._generations[chunk.sequence.id].tokens[chunk.start : chunk.start + chunk.tokens]
            positions += places
            slots += [table[place // size] * size + place % size for place in places]
            if chunk.emits:
                last.append(len(ids) - 1)
        return Inputs(
            ids=self._tensor(ids),
            positions=self._tensor(positions),
            rows=torch.from_numpy(self.kv_shape.rows_of(np.array(slots))).to(self._device),
            last=self._tensor(last),
            attention=self._attention.plan([Span(c.start, c.tokens, c.sequence.table) for c in chunks]),
        )

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _attention_order(chunk: Chunk) -> tuple[bool, int]:
    """Single tokens first, by context: attention pads those of similar length together."""
    return chunk.tokens > 1, chunk.start

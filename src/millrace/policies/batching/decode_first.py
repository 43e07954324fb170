"""Decode only, while more than a bound of requests decode; then compute prompts in what the decodes leave.

Source: the decode-prioritising schedulers of the taxonomy of Sarathi-Serve (Agrawal et al., OSDI 2024), like
FasterTransformer, which admits nobody before a batch is done.

With the bound 0 a batch is decoded to its end before the next prompts are computed: the steadiest time
between tokens, and the longest wait for the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from millrace.core.batch import BatchView, Plan
from millrace.core.room import grants, prompts


@dataclass(frozen=True, slots=True)
class Policy:
    """Prompts are computed beside at most `beside` decodes."""

    beside: int = 8
    steady: ClassVar[bool] = True
    eager: ClassVar[bool] = True

    def plan(self, batch: BatchView) -> Plan:
        """Grant decodes, and beside few of them prompts: those begun, then waiting ones."""
        decodes = min(batch.decoding, batch.step_tokens)
        left = batch.step_tokens - decodes
        if not left or decodes > self.beside:
            return Plan(decodes)
        waiting = islice(batch.waiting, batch.sequences - len(batch.running))
        return Plan(decodes, grants(prompts(batch, batch.prefilling, waiting, left), left))

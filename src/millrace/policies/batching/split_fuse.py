"""Decode every running sequence, then fill the step with prompt tokens, splitting long prompts over steps.

Source: Sarathi-Serve (Agrawal et al., OSDI 2024); Dynamic SplitFuse of DeepSpeed-FastGen (Holmes et al.,
2024); the default of vLLM since V1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from millrace.core.batch import BatchView, Grant, Plan


@dataclass(frozen=True, slots=True)
class Policy:
    """No settings: the chunk size is `step_tokens` of the replica's limits."""

    steady: ClassVar[bool] = True
    eager: ClassVar[bool] = True

    def plan(self, batch: BatchView) -> Plan:
        """Grant decodes, then prompts already begun, then waiting ones, until the step is full."""
        decodes, prefilling, waiting = batch.decoding, batch.prefilling, batch.waiting
        left = batch.step_tokens - decodes
        if left <= 0:
            return Plan(batch.step_tokens)
        if not prefilling and not waiting:
            return Plan(decodes)
        grants: list[Grant] = []
        for sequence in prefilling:
            if left:
                grants.append(Grant(sequence.id, min(sequence.missing, left)))
                left -= grants[-1].tokens
        if left and waiting:
            for sequence in islice(waiting, batch.sequences - len(batch.running)):
                if not left:
                    break
                grants.append(Grant(sequence.id, min(batch.missing_tokens(sequence), left)))
                left -= grants[-1].tokens
        return Plan(decodes, grants)

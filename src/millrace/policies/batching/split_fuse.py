"""Decode every running sequence, then fill the step with prompt tokens, splitting long prompts over steps.

Source: Sarathi-Serve (Agrawal et al., OSDI 2024); Dynamic SplitFuse of DeepSpeed-FastGen (Holmes et al.,
2024); the default of vLLM since V1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from millrace.core.batch import BatchView, Grant


@dataclass(frozen=True, slots=True)
class Policy:
    """No settings: the chunk size is `step_tokens` of the replica's limits."""

    steady: ClassVar[bool] = True

    def plan(self, batch: BatchView) -> list[Grant]:
        """Grant decodes, then prompts already begun, then waiting ones, until the step is full."""
        running = batch.running
        grants = [Grant(sequence.id, 1) for sequence in running if sequence.missing == 1]
        del grants[batch.step_tokens :]
        left = batch.step_tokens - len(grants)
        if left and len(grants) < len(running):
            for sequence in running:
                if left and sequence.missing > 1:
                    grants.append(Grant(sequence.id, min(sequence.missing, left)))
                    left -= grants[-1].tokens
        for sequence in islice(batch.waiting, batch.sequences - len(running)):
            if not left:
                break
            grants.append(Grant(sequence.id, min(batch.missing_tokens(sequence), left)))
            left -= grants[-1].tokens
        return grants

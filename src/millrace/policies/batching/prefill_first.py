"""Compute whole prompts first, as many as a step holds, and decode only while no prompt can be computed.

Source: the selection of Orca (Yu et al., OSDI 2022) and the default scheduler of vLLM before V1.

Prompts longer than a step are split here, over steps of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from millrace.core.batch import BatchView, Grant, Plan


@dataclass(frozen=True, slots=True)
class Policy:
    """No settings: `step_tokens` of the replica's limits bounds the prompts of one step."""

    steady: ClassVar[bool] = True
    eager: ClassVar[bool] = True

    def plan(self, batch: BatchView) -> Plan:
        """Grant prompts already begun, else whole waiting ones, else every decode."""
        prompts = _begun(batch) or _waiting(batch)
        return Plan(0, prompts) if prompts else Plan(min(batch.decoding, batch.step_tokens))


def _begun(batch: BatchView) -> list[Grant]:
    grants: list[Grant] = []
    left = batch.step_tokens
    for sequence in batch.prefilling:
        if left:
            grants.append(Grant(sequence.id, min(sequence.missing, left)))
            left -= grants[-1].tokens
    return grants


def _waiting(batch: BatchView) -> list[Grant]:
    grants: list[Grant] = []
    left = batch.step_tokens
    for sequence in islice(batch.waiting, batch.sequences - len(batch.running)):
        missing = batch.missing_tokens(sequence)
        if missing > left and grants:
            break
        grants.append(Grant(sequence.id, min(missing, left)))
        left -= grants[-1].tokens
        if not left:
            break
    return grants

"""Decode every running sequence, and compute as much of the prompts as lets the step end in time.

Source: the token budget of Sarathi-Serve (Agrawal et al., OSDI 2024), which is profiled once for an objective
of the time between tokens; here it is chosen anew for every step from a prediction of what the step takes.

The simulator predicts with the cost model of the engine, an engine with what it learns from its own steps.
As long as nothing is known, or when no more is in time, prompts get the least that a step has for them, so
that they go on; without decodes nobody waits for a token, and the step is filled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar

from millrace.core.batch import BatchView, Plan
from millrace.core.cost.shape import StepShape, StepTimes
from millrace.core.room import grants, prompts, tokens_in_time


@dataclass(slots=True)
class Policy:
    """A step with decodes is to take at most `tpot_s`; `least_tokens` of prompts go beside them always."""

    tpot_s: float = 0.05
    least_tokens: int = 32
    _times: StepTimes | None = field(default=None, init=False, compare=False, repr=False)
    steady: ClassVar[bool] = True
    eager: ClassVar[bool] = True

    def informed(self, times: StepTimes) -> Policy:
        """Return the policy for a replica whose steps take so long."""
        found = replace(self)
        found._times = times
        return found

    def plan(self, batch: BatchView) -> Plan:
        """Grant decodes, then prompts already begun, then waiting ones, until the time is up."""
        decodes = min(batch.decoding, batch.step_tokens)
        left = batch.step_tokens - decodes
        waiting = islice(batch.waiting, batch.sequences - len(batch.running))
        found = prompts(batch, batch.prefilling, waiting, left)
        if not found:
            return Plan(decodes)
        if not decodes:
            return Plan(0, grants(found, left))
        shape = StepShape(decodes, batch.context_tokens, 0, 0, 0, decodes)
        budget = tokens_in_time(self._times, shape, found, left, limit_s=self.tpot_s)
        return Plan(decodes, grants(found, min(left, max(budget, self.least_tokens))), steps=1)

"""The shape of a step, and the protocol of whatever prices it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class StepShape(Struct, frozen=True):
    """Everything about one iteration that its price depends on.

    `decodes` sequences add one token each to `decode_context_tokens` tokens of KV cache in total;
    `prefills` sequences compute `prefill_tokens` prompt tokens in total, whose attention looks at
    `prefill_attended_tokens` = sum over chunks of c * kv + c * (c + 1) / 2 query-key pairs (c new
    tokens on top of kv cached ones). `emits` sequences leave the step with a new token.
    """

    decodes: int = 0
    decode_context_tokens: int = 0
    prefills: int = 0
    prefill_tokens: int = 0
    prefill_attended_tokens: int = 0
    emits: int = 0

    @property
    def tokens(self) -> int:
        """Tokens whose projections are computed."""
        return self.decodes + self.prefill_tokens


class CostModel(Protocol):
    """Prices a step of one replica."""

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes."""

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws; NaN where the power is not known."""

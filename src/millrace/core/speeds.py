"""The few figures from which a policy predicts what a replica's steps take, read off a cost model."""

from __future__ import annotations

from msgspec.structs import replace

from millrace.core.cost import CostModel, StepShape
from millrace.core.replica import Limits

# What `decode_step_s` predicts: a step of a moderately loaded chat server.
TYPICAL_SEQUENCES = 32
TYPICAL_CONTEXT_TOKENS = 1024
# What `context_s` is measured with: so many requests, beside which a prompt is computed.
TYPICAL_RUNNING = 8
LONG_CONTEXT_TOKENS = 8192


def prefill_tokens_per_s(cost: CostModel, limits: Limits) -> float:
    """Tokens a second of a prompt that fills whole steps by itself."""
    return limits.step_tokens / cost.step_s(_chunk(limits.step_tokens))


def decode_step_s(cost: CostModel, limits: Limits) -> float:
    """Seconds of a step of a moderately loaded server."""
    n = min(TYPICAL_SEQUENCES, limits.sequences)
    return cost.step_s(_crowd(n, TYPICAL_CONTEXT_TOKENS))


def decode_sequence_s(cost: CostModel, limits: Limits) -> float:
    """Seconds by which a step that only decodes is longer for each request in it, up to a full server.

    On one that is full at a moderate load: up to that load.
    """
    few, many = min(TYPICAL_SEQUENCES, limits.sequences), limits.sequences
    few = few if few < many else 1
    longer_s = cost.step_s(_crowd(many, 1)) - cost.step_s(_crowd(few, 1))
    return max(0.0, longer_s) / max(1, many - few)


def decode_context_s(cost: CostModel, limits: Limits) -> float:
    """Seconds by which a step that only decodes is longer for each cached token."""
    n = min(TYPICAL_SEQUENCES, limits.sequences)
    longer_s = cost.step_s(_crowd(n, LONG_CONTEXT_TOKENS)) - cost.step_s(_crowd(n, TYPICAL_CONTEXT_TOKENS))
    return max(0.0, longer_s) / (n * (LONG_CONTEXT_TOKENS - TYPICAL_CONTEXT_TOKENS))


def attended_s(cost: CostModel, limits: Limits) -> float:
    """Seconds by which a step of a prompt is longer for each pair of a new token and a cached one."""
    tokens = limits.step_tokens
    longer_s = cost.step_s(_chunk(tokens, LONG_CONTEXT_TOKENS)) - cost.step_s(_chunk(tokens))
    return max(0.0, longer_s) / (tokens * LONG_CONTEXT_TOKENS)


def context_s(cost: CostModel, limits: Limits) -> float:
    """Seconds by which a step that computes a prompt is longer for each cached token of those that run."""
    running = min(TYPICAL_RUNNING, limits.sequences, limits.step_tokens)
    chunk = _chunk(limits.step_tokens - running) if limits.step_tokens > running else StepShape()
    few, many = running * TYPICAL_CONTEXT_TOKENS, running * LONG_CONTEXT_TOKENS
    longer_s = cost.step_s(_beside(chunk, running, many)) - cost.step_s(_beside(chunk, running, few))
    return max(0.0, longer_s) / (many - few)


def _chunk(tokens: int, cached: int = 0) -> StepShape:
    pairs = tokens * cached + tokens * (tokens + 1) // 2
    return StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=pairs)


def _crowd(requests: int, each_tokens: int) -> StepShape:
    return StepShape(decodes=requests, decode_context_tokens=requests * each_tokens, emits=requests)


def _beside(chunk: StepShape, running: int, context_tokens: int) -> StepShape:
    return replace(chunk, decodes=running, decode_context_tokens=context_tokens, emits=running)

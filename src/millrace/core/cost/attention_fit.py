"""Attention as eleven coefficients, fitted to a measured grid: small enough to write down and to ship.

Three are for batches of decodes alone. The eight for batches with a prompt include what decodes cost there,
which is about twice as much for a cached token.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import mul

from msgspec import Struct
from msgspec.structs import astuple, replace

from millrace.core.cost.attention_grid import Batch, cached_each
from millrace.core.cost.least_squares import nearest
from millrace.core.cost.linear import FitError
from millrace.core.cost.shape import ENDLESS, StepShape
from millrace.core.cost.skew import Skew
from millrace.core.stats import mean, percentile

_HOLD_OUT_EVERY = 5


class DecodeTerms(Struct, frozen=True):
    """Seconds for a batch of decodes alone: in all, for each, and for each of their cached tokens."""

    start_s: float
    per_decode_s: float
    per_context_s: float


class MixedTerms(Struct, frozen=True):
    """Seconds for a batch with a prompt chunk: in all, for its tokens, cached tokens and pairs of both, for
    each decode, its cached tokens, the mean of those, and each pair of a decode and a prompt token."""

    start_s: float
    per_prompt_s: float
    per_cached_s: float
    per_pair_s: float
    per_decode_s: float
    per_context_s: float
    per_length_s: float
    per_crossing_s: float


class AttentionFit(Struct, frozen=True, kw_only=True):
    """Prices attention by its coefficients. `alpha` is how far beyond the mean unequal decodes lie."""

    decode: DecodeTerms
    mixed: MixedTerms
    alpha: float = 0.0
    error: FitError | None = None

    @property
    def needs_lengths(self) -> bool:
        """Whether the price depends on the longest decode."""
        return self.alpha > 0

    @property
    def expected_error(self) -> str:
        """How far off the fit was on batches it had not seen, in words."""
        if self.error is None:
            return "attention fitted, its error not measured"
        return (
            f"attention fitted, mean {self.error.mean:.1%}, 95th percentile {self.error.p95:.1%} off "
            f"on {self.error.held_out} batches"
        )

    def attention_s(self, shape: StepShape) -> float:
        """Seconds of attention in all layers."""
        context = float(shape.decode_context_tokens)
        if self.alpha and shape.decode_longest_tokens:
            context += self.alpha * (shape.decodes * shape.decode_longest_tokens - context)
        terms = astuple(self.mixed if shape.prefill_tokens else self.decode)
        price_s: float = sum(map(mul, terms, _work(shape, context)))
        return price_s

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """For a fixed composition of the batch the price is one straight line."""
        return ENDLESS


def fit_attention(seconds: Mapping[Batch, float], skew: Skew | None = None) -> AttentionFit:
    """Fit to a measured grid; every fifth batch is held out, and the error is that of the held-out ones."""
    alone = [(key, value) for key, value in sorted(seconds.items()) if not key[0]]
    mixed = [(key, value) for key, value in sorted(seconds.items()) if key[0]]
    if len(alone) < _HOLD_OUT_EVERY or len(mixed) < 2 * _HOLD_OUT_EVERY:
        raise ValueError(f"attention was timed for {len(alone)} batches of decodes and {len(mixed)} others")
    fit = AttentionFit(
        decode=DecodeTerms(*_coefficients(alone)),
        mixed=MixedTerms(*_coefficients(mixed)),
        alpha=max(0.0, skew.default) if skew else 0.0,
    )
    held_out = alone[_HOLD_OUT_EVERY - 1 :: _HOLD_OUT_EVERY] + mixed[_HOLD_OUT_EVERY - 1 :: _HOLD_OUT_EVERY]
    errors = [abs(fit.attention_s(shape_of(batch)) / value - 1) for batch, value in held_out]
    error = FitError(
        mean=mean(errors),
        p95=percentile(errors, 95),
        fitted=len(seconds) - len(held_out),
        held_out=len(held_out),
    )
    return replace(fit, error=error)


def shape_of(batch: Batch) -> StepShape:
    """Return the shape of a step that does what was measured."""
    chunk, cached, decodes, each = batch
    return StepShape(
        decodes=decodes,
        decode_context_tokens=decodes * each,
        prefills=int(chunk > 0),
        prefill_tokens=chunk,
        prefill_attended_tokens=chunk * cached + chunk * (chunk + 1) // 2,
        emits=decodes,
        decode_longest_tokens=each,
        decode_shortest_tokens=each,
    )


def _coefficients(timed: list[tuple[Batch, float]]) -> list[float]:
    fitted = [entry for i, entry in enumerate(timed) if (i + 1) % _HOLD_OUT_EVERY]
    shapes = [shape_of(batch) for batch, _ in fitted]
    work = [_work(shape, shape.decode_context_tokens) for shape in shapes]
    return nearest(work, [value for _, value in fitted])


def _work(shape: StepShape, context: float) -> tuple[float, ...]:
    """What the coefficients multiply, in their order."""
    chunk, decodes = shape.prefill_tokens, shape.decodes
    if not chunk:
        return (1.0, decodes, context)
    length = context / decodes if decodes else 0.0
    cached, pairs = max(0.0, cached_each(shape)), shape.prefill_attended_tokens
    return (1.0, chunk, cached, pairs, decodes, context, length, decodes * chunk)

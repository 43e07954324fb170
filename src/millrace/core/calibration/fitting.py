"""Fits the price of a step to samples of several steps each, and says how far off it is on others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct, convert
from msgspec.structs import replace

from millrace.core.calibration.points import Kind
from millrace.core.calibration.timings import Sample
from millrace.core.cost import FitError, Linear
from millrace.core.cost.least_squares import nearest
from millrace.core.cost.linear import COEFFICIENTS
from millrace.core.stats import mean, percentile

_LEAST_FITTED = 10
_LEAST_HELD_OUT = 2


class Fitted(Struct, frozen=True, kw_only=True):
    """A cost model, and its mean error by kind of sample, on those that were held out."""

    cost: Linear
    errors: dict[Kind, float]


def fitted(samples: Iterable[Sample], *, source: str, coefficients: Collection[str] = COEFFICIENTS) -> Fitted:
    """Fit to the samples that are not held out; errors are those of the others, relative to their time.

    Coefficients that are not named stay 0. Raises ValueError for fewer than 10 samples to fit to, or 2
    held out.
    """
    known = list(samples)
    shown = [one for one in known if not one.held_out]
    held_out = [one for one in known if one.held_out]
    if len(shown) < _LEAST_FITTED or len(held_out) < _LEAST_HELD_OUT:
        raise ValueError(
            f"samples has {len(shown)} to fit to and {len(held_out)} held out; "
            f"measure at least {_LEAST_FITTED} and {_LEAST_HELD_OUT}"
        )
    cost = _solved(shown, [name for name in COEFFICIENTS if name in coefficients])
    errors = [(one.kind, abs(price_s(cost, one) / one.seconds - 1)) for one in held_out]
    error = FitError(
        mean=mean(error for _, error in errors),
        p95=percentile((error for _, error in errors), 95),
        fitted=len(shown),
        held_out=len(held_out),
    )
    kinds: dict[Kind, list[float]] = {}
    for kind, one in sorted(errors):
        kinds.setdefault(kind, []).append(one)
    return Fitted(
        cost=replace(cost, error=error, source=source),
        errors={kind: mean(values) for kind, values in kinds.items()},
    )


def price_s(cost: Linear, sample: Sample) -> float:
    """Return what the cost model says that the sample takes."""
    return sum(map(cost.step_s, sample.steps))


def _solved(samples: Sequence[Sample], names: Sequence[str]) -> Linear:
    # A model whose only coefficient is 1 counts what the coefficient is for.
    counters = [convert({"base_s": 0.0} | {name: 1.0}, Linear) for name in names]
    rows = [[price_s(counter, one) for counter in counters] for one in samples]
    values = nearest(rows, [one.seconds for one in samples])
    return convert({"base_s": 0.0} | dict(zip(names, values, strict=True)), Linear)

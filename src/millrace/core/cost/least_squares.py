"""Fits a linear cost model to measured steps: relative least squares with no negative coefficient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from operator import mul

from msgspec import convert
from msgspec.structs import replace

from millrace.core.cost.linear import COEFFICIENTS, FitError, Linear
from millrace.core.cost.shape import StepShape
from millrace.core.stats import mean, percentile

Vector = list[float]
_HOLD_OUT_EVERY = 5
_MIN_SAMPLES = 10
# Keeps equal columns apart (a decode-only log has as many emits as decodes) without moving any price.
_RIDGE = 1e-10
_ROUNDS = 4
_LEAST_WEIGHT = 0.1  # of the measured time: a price near 0 must not outweigh everything else


def fit(samples: Iterable[tuple[StepShape, float]], *, source: str | None = None) -> Linear:
    """Fit to steps and their seconds; every fifth is held out, and the error is that of the held-out ones.

    Errors count relative to the fitted time, so short steps matter as much as long ones. Relative to the
    measured time they would not: steps that were interrupted, always too long, would pull every price down.
    Raises ValueError for fewer than 10 samples, and for a time that is not above 0.
    """
    steps = list(samples)
    if len(steps) < _MIN_SAMPLES:
        raise ValueError(f"samples has {len(steps)} steps; measure at least {_MIN_SAMPLES}")
    for index, (_, seconds) in enumerate(steps):
        if not seconds > 0:
            raise ValueError(f"samples: step {index} took {seconds} s; drop it or time it again")
    held_out = steps[_HOLD_OUT_EVERY - 1 :: _HOLD_OUT_EVERY]
    fitted = [step for i, step in enumerate(steps) if (i + 1) % _HOLD_OUT_EVERY]
    values = nearest([_features(shape) for shape, _ in fitted], [seconds for _, seconds in fitted])
    linear = convert(dict(zip(COEFFICIENTS, values, strict=True)), Linear)
    errors = [abs(linear.step_s(shape) / seconds - 1) for shape, seconds in held_out]
    error = FitError(
        mean=mean(errors), p95=percentile(errors, 95), fitted=len(fitted), held_out=len(held_out)
    )
    return replace(linear, error=error, source=source)


def nearest(rows: Sequence[Sequence[float]], goals: Sequence[float]) -> Vector:
    """Find x >= 0 that brings every row's product with x near its goal; errors are relative to the product.

    It solves again and again, each time weighing rows by the products found the time before.
    """
    weights = list(goals)
    values: Vector = []
    for _ in range(_ROUNDS):
        scaled = [[x / w for x in row] for row, w in zip(rows, weights, strict=True)]
        values = _solve(scaled, [goal / w for goal, w in zip(goals, weights, strict=True)])
        products = [sum(map(mul, row, values)) for row in rows]
        weights = [max(found, goal * _LEAST_WEIGHT) for found, goal in zip(products, goals, strict=True)]
    return values


def _features(shape: StepShape) -> tuple[int, ...]:
    """What the coefficients multiply, in their order."""
    return (
        1,
        shape.tokens,
        shape.decodes,
        shape.decode_context_tokens,
        shape.prefills,
        shape.prefill_attended_tokens,
        shape.emits,
        shape.tokens > 1,
    )


def _solve(rows: list[Vector], goals: Vector) -> Vector:
    """Find x >= 0 that brings every row's product with x nearest to its goal (Lawson and Hanson, 1974)."""
    width = len(rows[0])
    scale = [sqrt(sum(row[i] ** 2 for row in rows)) or 1.0 for i in range(width)]
    scaled = [[x / s for x, s in zip(row, scale, strict=True)] for row in rows]
    gram = [[sum(row[i] * row[j] for row in scaled) for j in range(width)] for i in range(width)]
    for i in range(width):
        gram[i][i] += _RIDGE
    target = [sum(row[i] * goal for row, goal in zip(scaled, goals, strict=True)) for i in range(width)]
    return [x / s for x, s in zip(_active_set(gram, target), scale, strict=True)]


def _active_set(gram: list[Vector], target: Vector) -> Vector:
    x = [0.0] * len(target)
    free: set[int] = set()
    while True:
        slope = [
            t - sum(g * v for g, v in zip(row, x, strict=True)) for row, t in zip(gram, target, strict=True)
        ]
        best = max(set(range(len(target))) - free, key=slope.__getitem__, default=None)
        if best is None or slope[best] <= 1e-9 * max(map(abs, target)):
            return x
        free.add(best)
        x = _move(gram, target, x, free)


def _move(gram: list[Vector], target: Vector, x: Vector, free: set[int]) -> Vector:
    """Go to the best point with only `free` coordinates above 0, dropping those that would fall below."""
    while True:
        order = sorted(free)
        goal = [0.0] * len(x)
        for i, value in zip(order, _eliminate(gram, target, order), strict=True):
            goal[i] = value
        falling = [i for i in order if goal[i] <= 0]
        if not falling:
            return goal
        first = min(falling, key=lambda i: x[i] / (x[i] - goal[i]))
        step = x[first] / (x[first] - goal[first])
        x = [v + step * (g - v) for v, g in zip(x, goal, strict=True)]
        x[first] = 0.0
        free.discard(first)


def _eliminate(gram: list[Vector], target: Vector, order: list[int]) -> Vector:
    """Solve the equations of the coordinates in `order`; they are positive definite, so no pivoting."""
    rows = [[gram[i][j] for j in order] + [target[i]] for i in order]
    for i, pivot in enumerate(rows):
        for row in rows[i + 1 :]:
            ratio = row[i] / pivot[i]
            for j in range(i, len(row)):
                row[j] -= ratio * pivot[j]
    values = [0.0] * len(order)
    for i in reversed(range(len(order))):
        known = sum(rows[i][j] * values[j] for j in range(i + 1, len(order)))
        values[i] = (rows[i][-1] - known) / rows[i][i]
    return values

"""Operator times as AIConfigurator keeps them (NVIDIA, Apache-2.0): products, attention, experts, NCCL.

Times are in milliseconds. Small kernels are not timed; they are taken to be bound by memory, at the figures
of its system descriptions. Nor are batches of prompts and decodes together, nor prompts on top of a cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from millrace.core.cost.attention_fit import AttentionFit, DecodeTerms, MixedTerms
from millrace.core.cost.collective import Collective, fit_collective
from millrace.core.cost.curve import Curve, curve
from millrace.core.cost.least_squares import nearest
from millrace.core.cost.linear import FitError
from millrace.core.cost.operators import Experts, Operators
from millrace.core.cost.profiled import Profiled
from millrace.core.cost.roofline import SAMPLER_BYTES, SAMPLER_S
from millrace.core.model import ModelSpec
from millrace.core.profile.setup import Setup
from millrace.core.stats import mean, percentile

Rows = Iterable[Mapping[str, Any]]
T = TypeVar("T")

_MS = 1e-3
_HOLD_OUT_EVERY = 5
# Norms, rotation and activation of a layer, each as AIConfigurator's systems describe a kernel that only
# moves memory: a start, and this share of the data sheet's bandwidth.
_SMALL_KERNELS, _SMALL_START_S, _SMALL_BANDWIDTH = 5, 3e-6, 0.8
# A cached token costs a decode this much more where a prompt is in its batch: 1.7 to 2.3 on the RTX cards
# whose mixed batches LLMServingSim has timed.
_MIXED = 2.0
_LEAST_BYTES, _MOST_BYTES = 1 << 16, 1 << 26  # what steps send: a few decodes, or a full batch of prompts


class _Product(Struct, frozen=True):
    m: int
    n: int
    k: int
    latency: float


class _Batch(Struct, frozen=True):
    batch_size: int
    isl: int
    step: int
    latency: float


class _Routed(Struct, frozen=True):
    num_tokens: int
    latency: float


class _Message(Struct, frozen=True):
    message_size: int
    latency: float


class Products:
    """Matrix products by their shape: between shapes that were timed lie straight lines."""

    def __init__(self, rows: Rows) -> None:
        timed: dict[int, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in _read(rows, _Product):
            timed[row.k][row.n][row.m] = row.latency * _MS
        self._by_depth = {
            k: {n: curve(by_tokens) for n, by_tokens in widths.items()} for k, widths in timed.items()
        }

    def curve(self, n: float, k: float) -> Curve:
        """Seconds by tokens for weights of `n` columns that sum over `k`."""
        near = {depth: self._by_depth[depth] for depth in _around(sorted(self._by_depth), k)}
        rows = {
            depth: [(width, widths[width]) for width in _around(sorted(widths), n)]
            for depth, widths in near.items()
        }
        tokens = sorted({int(m) for row in rows.values() for _, each in row for m in each.points})
        return curve({m: _at({depth: _across(row, m, n) for depth, row in rows.items()}, k) for m in tokens})


def operators(setup: Setup, products: Rows, experts: Rows = ()) -> Operators:
    """Return everything in a step but attention. `experts` are the rows of the model's own shape and split.

    Raises ValueError if a model with experts has no rows of them.
    """
    found, model = Products(products), setup.model
    return Operators(
        dense=_dense(found, setup),
        head=_head(found, setup),
        experts=_experts(model, list(_read(experts, _Routed))) if model.experts else None,
        exchange=setup.exchange,
        host_s=setup.host_s,
        graph_tokens=setup.graph_tokens,
    )


def attention(prompts: Rows, decodes: Rows, layers: int) -> AttentionFit:
    """Fit attention to the rows of the model's own heads; every fifth is held out, and tells the error.

    Raises ValueError if there are too few.
    """
    prompt = [(_prompt_work(row), row.latency * _MS * layers) for row in _read(prompts, _Batch)]
    decode = [(_decode_work(row), row.latency * _MS * layers) for row in _read(decodes, _Batch)]
    (start_s, per_prompt_s, per_pair_s), far_prompt = _fit(prompt, "prompts")
    (alone_s, per_decode_s, per_context_s), far_decode = _fit(decode, "decodes")
    errors = far_prompt + far_decode
    fitted = len(prompt) + len(decode) - len(errors)
    return AttentionFit(
        decode=DecodeTerms(alone_s, per_decode_s, per_context_s),
        mixed=MixedTerms(
            start_s, per_prompt_s, 0.0, per_pair_s, per_decode_s, _MIXED * per_context_s, 0.0, 0.0
        ),
        error=FitError(mean=mean(errors), p95=percentile(errors, 95), fitted=fitted, held_out=len(errors)),
    )


def profiled(setup: Setup, *, products: Rows, prompts: Rows, decodes: Rows, experts: Rows = ()) -> Profiled:
    """Return a cost model from these rows."""
    parts = operators(setup, products, experts)
    return Profiled(parts, attention(prompts, decodes, setup.model.layers), sheet=setup.sheet)


def collective(sums: Rows, gathers: Rows, devices: int) -> Collective:
    """Fit to all-reduces, and to gathers and scatters, of 64 KiB to 64 MiB.

    Raises ValueError for fewer than two sizes.
    """
    summed = fit_collective(_sizes(sums), devices, "all-reduces of AIConfigurator's tables")
    gathered = _sizes(gathers)
    if len(gathered) < 2:
        return summed
    share = fit_collective(gathered, devices, "gathers").per_byte_s / summed.per_byte_s
    return msgspec.structs.replace(summed, gather=share)


def _read(rows: Rows, kind: type[T]) -> list[T]:
    try:
        return msgspec.convert(list(rows), list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; is this table of another version of aiconfigurator-core?") from None


def _dense(products: Products, setup: Setup) -> Curve:
    model, degree = setup.model, setup.tensor_parallel
    plain = model.layers - model.expert_layers
    queries, keys = model.heads * model.head_dim / degree, model.kv_heads * model.head_dim / degree
    parts = [
        (model.layers, products.curve(queries + 2 * keys, model.hidden)),
        (model.layers, products.curve(model.hidden, queries)),
    ]
    if plain:
        parts.append((plain, products.curve(2 * model.ffn / degree, model.hidden)))
        parts.append((plain, products.curve(model.hidden, model.ffn / degree)))
    if model.experts:
        parts.append((model.expert_layers, products.curve(model.experts, model.hidden)))
    width = 0 if not plain else 3 * model.ffn
    moved = 8 * model.hidden + (2 * model.head_dim * (model.heads + model.kv_heads) + width) / degree
    token_s = model.layers * 2 * moved / (setup.device.memory_bytes_per_s * _SMALL_BANDWIDTH)
    start_s = model.layers * _SMALL_KERNELS * _SMALL_START_S
    points = sorted({int(m) for _, each in parts for m in each.points})
    return curve(
        {m: start_s + m * token_s + sum(often * each.at(m) for often, each in parts) for m in points}
    )


def _head(products: Products, setup: Setup) -> Curve:
    model = setup.model
    logits = products.curve(model.vocab / setup.tensor_parallel, model.hidden)
    each_s = SAMPLER_BYTES * model.vocab / setup.device.memory_bytes_per_s
    return curve({int(n): SAMPLER_S + n * each_s + logits.at(n) for n in logits.points})


def _experts(model: ModelSpec, rows: Sequence[_Routed]) -> Experts:
    if not rows:
        raise ValueError(
            f"the tables have no experts like those of {model.name}: hidden {model.hidden}, width "
            f"{model.expert_ffn}, {model.active_experts} of {model.experts}; take its roofline"
        )
    seconds = {row.num_tokens: row.latency * _MS * model.expert_layers for row in rows}
    woken = tuple(Curve((0.0,), (seconds[tokens],)) for tokens in sorted(seconds))
    return Experts(
        tokens=tuple(sorted(seconds)), woken=woken, experts=model.experts, active=model.active_experts
    )


def _prompt_work(row: _Batch) -> list[float]:
    return [1.0, float(row.batch_size * row.isl), row.batch_size * row.isl * (row.isl + 1) / 2]


def _decode_work(row: _Batch) -> list[float]:
    return [1.0, float(row.batch_size), float(row.batch_size * (row.isl + row.step))]


def _fit(timed: Sequence[tuple[list[float], float]], what: str) -> tuple[list[float], list[float]]:
    """Return the coefficients, and how far off they are on what was held out."""
    if len(timed) < 2 * _HOLD_OUT_EVERY:
        raise ValueError(f"the tables have {len(timed)} {what} with the model's heads; take its roofline")
    ordered = sorted(timed)
    fitted = [entry for i, entry in enumerate(ordered) if (i + 1) % _HOLD_OUT_EVERY]
    values = nearest([work for work, _ in fitted], [seconds for _, seconds in fitted])
    held_out = ordered[_HOLD_OUT_EVERY - 1 :: _HOLD_OUT_EVERY]
    return values, [
        abs(sum(w * v for w, v in zip(work, values, strict=True)) / seconds - 1) for work, seconds in held_out
    ]


def _sizes(rows: Rows) -> dict[int, float]:
    """Return the mean of each size: gathers and scatters come in the same rows."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in _read(rows, _Message):
        if _LEAST_BYTES <= row.message_size <= _MOST_BYTES:
            found[row.message_size].append(row.latency * _MS)
    return {size: mean(seconds) for size, seconds in found.items()}


def _around(points: Sequence[int], x: float) -> list[int]:
    """Return the point itself, or the two nearest that a line through `x` is drawn between."""
    if x in points or len(points) < 2:
        return [min(points, key=lambda point: abs(point - x))]
    j = next((i for i, point in enumerate(points) if point > x), len(points) - 1)
    return list(points[max(j, 1) - 1 : max(j, 1) + 1])


def _across(row: Sequence[tuple[int, Curve]], tokens: float, n: float) -> float:
    return _at({width: each.at(tokens) for width, each in row}, n)


def _at(values: Mapping[int, float], x: float) -> float:
    return curve(values).at(x)

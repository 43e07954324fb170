"""Operator times of vLLM as LLMServingSim 2.0 records them (casys-kaist, MIT): five tables and settings.

Times are in microseconds, for one layer of one device. Its `attention.csv` includes mixed batches, and
its `skew_fit.csv` what unequally long decodes cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from millrace.core.cost.attention_grid import Batch
from millrace.core.cost.curve import Curve, curve
from millrace.core.cost.skew import Bins, Kind, Skew
from millrace.core.model import ModelSpec
from millrace.core.profile.rows import read_rows

_ONCE = ("embedding", "final_layernorm")
_MLP = ("gate_up_proj", "act_fn", "down_proj")
_EVERY_LAYER = ("qkv_proj", "qk_norm", "rotary_emb", "o_proj")
_PRODUCTS = ("qkv_proj", "o_proj")  # without which a table is not whole
_MLP_PRODUCTS = ("gate_up_proj", "down_proj")
_NORM = "layernorm"  # one time for both of a layer
_HEAD = ("lm_head", "sampler")
_US = 1e-6


class _Dense(Struct, frozen=True):
    layer: str
    tokens: int
    time_us: float


class _PerSequence(Struct, frozen=True):
    layer: str
    sequences: int
    time_us: float


class _Attention(Struct, frozen=True):
    prefill_chunk: int
    kv_prefill: int
    n_decode: int
    kv_decode: int
    time_us: float


class _Experts(Struct, frozen=True):
    tokens: int
    activated_experts: int
    time_us: float


class _Alpha(Struct, frozen=True):
    pc: int
    n_label: str
    skew_rate_label: str
    kv_big_label: str
    kp_label: str
    alpha: float


class _Axes(Struct, frozen=True):
    n_bins: tuple[float, ...]
    n_labels: tuple[str, ...]
    skew_rate_bins: tuple[float, ...]
    skew_rate_labels: tuple[str, ...]
    kv_big_bins: tuple[float, ...]
    kv_big_labels: tuple[str, ...]
    kp_bins: tuple[float, ...]
    kp_labels: tuple[str, ...]


class _SkewOfDegree(Struct, frozen=True):
    alpha_default: float


class _SkewFit(Struct, frozen=True):
    enabled: bool = False
    bucket_axes: _Axes | None = None
    per_tp: dict[int, _SkewOfDegree] = {}


class Description(Struct, frozen=True):
    """What `meta.yaml` says of a profile: whose times it holds, and how the skew of decodes was fitted."""

    model: str
    gpu: str
    hardware: str
    vllm_version: str
    skew_fit: _SkewFit = _SkewFit()


def read_description(settings: Mapping[str, Any]) -> Description:
    """Read the settings of `meta.yaml`. Raises ValueError, naming the field that is wrong."""
    try:
        return msgspec.convert(settings, Description, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; profile again, or correct the field") from None


def read_dense(lines: Iterable[str], model: ModelSpec) -> Curve:
    """Read `dense.csv`: seconds of all layers but attention and experts, by tokens."""
    rows = ((row.layer, row.tokens, row.time_us) for row in read_rows(lines, _Dense))
    plain = model.layers > model.expert_layers
    return _total(rows, lambda layer: _times(layer, model), _PRODUCTS + _MLP_PRODUCTS * plain)


def read_head(lines: Iterable[str]) -> Curve:
    """Read `per_sequence.csv`: seconds of LM head and sampler, by sequences."""
    rows = ((row.layer, row.sequences, row.time_us) for row in read_rows(lines, _PerSequence))
    return _total(rows, _head_times, _HEAD)


def read_attention(lines: Iterable[str], model: ModelSpec) -> dict[Batch, float]:
    """Read `attention.csv`: seconds of all layers by batch."""
    return {
        (row.prefill_chunk, row.kv_prefill, row.n_decode, row.kv_decode): row.time_us * _US * model.layers
        for row in read_rows(lines, _Attention)
    }


def read_experts(lines: Iterable[str], model: ModelSpec) -> dict[int, Curve]:
    """Read `moe.csv`: seconds of the experts of all layers, by tokens and experts woken."""
    found: dict[int, dict[int, float]] = {}
    for row in read_rows(lines, _Experts):
        seconds = row.time_us * _US * model.expert_layers
        found.setdefault(row.tokens, {})[row.activated_experts] = seconds
    return {tokens: curve(found[tokens]) for tokens in sorted(found)}


def read_skew(description: Description, lines: Iterable[str], tensor_parallel: int) -> Skew | None:
    """Read `skew_fit.csv`, which goes with the settings; None if they say not to correct."""
    fitted = description.skew_fit
    entry = fitted.per_tp.get(tensor_parallel)
    if not fitted.enabled or entry is None:
        return None
    if fitted.bucket_axes is None:
        return Skew(default=entry.alpha_default)
    axes = fitted.bucket_axes
    alphas: dict[Kind, float] = {
        (row.pc, row.n_label, row.skew_rate_label, row.kv_big_label, row.kp_label): row.alpha
        for row in read_rows(lines, _Alpha)
    }
    return Skew(
        default=entry.alpha_default,
        decodes=Bins(axes.n_bins, axes.n_labels),
        rate=Bins(axes.skew_rate_bins, axes.skew_rate_labels),
        longest=Bins(axes.kv_big_bins, axes.kv_big_labels),
        cached=Bins(axes.kp_bins, axes.kp_labels),
        alphas=alphas,
    )


def _times(layer: str, model: ModelSpec) -> int:
    """How often a step runs the layer."""
    often = dict.fromkeys(_ONCE, 1) | dict.fromkeys(_EVERY_LAYER, model.layers)
    often |= dict.fromkeys(_MLP, model.layers - model.expert_layers) | {_NORM: 2 * model.layers}
    if layer not in often:
        raise ValueError(f"layer {layer!r} is not known; those by tokens are {', '.join(often)}")
    return often[layer]


def _head_times(layer: str) -> int:
    if layer not in _HEAD:
        raise ValueError(f"layer {layer!r} is not known; those by sequences are {', '.join(_HEAD)}")
    return 1


def _total(
    rows: Iterable[tuple[str, int, float]], times: Callable[[str], int], needed: tuple[str, ...]
) -> Curve:
    """Add the layers up, each as often as a step runs it."""
    layers: dict[str, dict[int, float]] = {}
    for layer, at, time_us in rows:
        layers.setdefault(layer, {})[at] = time_us * _US * times(layer)
    missing = [layer for layer in needed if layer not in layers]
    if missing:
        raise ValueError(f"has no rows of layer {', '.join(missing)}; profile again with all layers")
    curves = [curve(values) for values in layers.values()]
    points = sorted({at for values in layers.values() for at in values})
    return Curve(tuple(points), tuple(sum(each.at(point) for each in curves) for point in points))

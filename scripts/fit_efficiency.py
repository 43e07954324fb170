"""Fit what `millrace.core.cost.efficiency` says of GPUs to published operator times, and print the errors.

Run it as `python scripts/fit_efficiency.py PROFILES`, where PROFILES holds
  compute/{a100,h100}/MODEL/mlp.csv and network/{a100,h100}_dgx/all_reduce.csv from microsoft/vidur (MIT), and
  serving/GPU/ORG/MODEL/bf16/tpN/{dense,attention,per_sequence,moe}.csv from casys-kaist/LLMServingSim (MIT).
Every second row is fitted, errors are those of the other rows. Fractions are of the data sheet's figures.
Layers are weighted so that every doubling of the batch counts alike: small batches are few, but decoding.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from millrace.core.catalogue import device, model
from millrace.core.cost.efficiency import TYPICAL
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec

Array = NDArray[np.float64]
VIDUR = {"a100": "a100-80g", "h100": "h100"}
VIDUR_MODELS = {
    "Llama-2-7b-hf": "llama-2-7b",
    "Llama-2-70b-hf": "llama-2-70b",
    "Meta-Llama-3-8B": "llama-3-8b",
    "Meta-Llama-3-70B": "llama-3-70b",
}
SERVING = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000"}
SERVING_MODELS = {"Llama-3.1-8B": "llama-3-8b", "Qwen3-32B": "qwen3-32b"}
PRODUCTS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
OTHERS = ("input_layernorm", "post_attention_layernorm", "attn_rope", "mlp_act", "add", "add")


def main(profiles: Path) -> None:
    """Print the fits."""
    for folder, name in VIDUR.items():
        files = sorted((profiles / "compute" / folder).glob("*/mlp.csv"))
        fit_layers(
            device(name), np.concatenate([vidur_layers(f, model(VIDUR_MODELS[f.parent.name])) for f in files])
        )
        fit_all_reduce(device(name), profiles / "network" / f"{folder}_dgx" / "all_reduce.csv")
    for folder, name in SERVING.items():
        runs = [
            (path, model(SERVING_MODELS[path.parent.parent.name]), int(path.name[2:]))
            for path in sorted((profiles / "serving" / folder).glob("*/*/bf16/tp*"))
            if path.parent.parent.name in SERVING_MODELS
        ]
        fit_layers(
            device(name),
            np.concatenate([serving_layers(*run) for run in runs if (run[0] / "dense.csv").exists()]),
        )
        fit_attention(device(name), np.concatenate([attention(*run) for run in runs]))
        for path, spec, _ in runs:
            show_sampler(device(name), spec, path / "per_sequence.csv")
    for path in sorted(profiles.glob("serving/*/*/*/bf16/tp1/moe.csv")):
        fit_experts(device(SERVING[path.parts[-6]]), path)


def vidur_layers(path: Path, spec: ModelSpec) -> Array:
    """Return rows of (tokens, weights, bytes moved a token, products' seconds, other seconds) of a layer."""
    rows = []
    with path.open() as lines:
        for row in csv.DictReader(lines):
            degree = int(row["num_tensor_parallel_workers"])
            parts = [
                sum(float(row[f"time_stats.{op}.mean"]) for op in ops) / 1e3 for ops in (PRODUCTS, OTHERS)
            ]
            rows.append((float(row["num_tokens"]), *layer(spec, degree), *parts))
    return np.array(rows)


def serving_layers(path: Path, spec: ModelSpec, degree: int) -> Array:
    """Return the same of vLLM's layers, whose two norms are timed once."""
    seconds: dict[float, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with (path / "dense.csv").open() as lines:
        for row in csv.DictReader(lines):
            times = {"embedding": 0, "final_layernorm": 0, "layernorm": 2}.get(row["layer"], 1)
            part = 0 if row["layer"].endswith("_proj") else 1
            seconds[float(row["tokens"])][part] += times * float(row["time_us"]) / 1e6
    return np.array([(tokens, *layer(spec, degree), *parts) for tokens, parts in seconds.items()])


def layer(spec: ModelSpec, degree: int) -> tuple[float, float]:
    """Return a device's share of a layer: its weights, and the bytes a token moves between the products."""
    kv_heads = max(spec.kv_heads, degree)
    attention = spec.hidden * spec.head_dim * 2 * (spec.heads + kv_heads)
    moved = 10 * spec.hidden + (2 * (spec.heads + kv_heads) * spec.head_dim + 3 * spec.ffn) / degree
    return (attention + 3 * spec.hidden * spec.ffn) / degree, 2 * moved


def fit_layers(spec: DeviceSpec, rows: Array) -> None:
    """Fit products, softly the longer of computing and reading; the rest as traffic; both have launches."""
    tokens, weights, moved, products_s, others_s = rows.T

    def products(x: Array) -> Array:
        compute, bandwidth, softness, launches = np.exp(x)
        computed = (2 * tokens * weights / (compute * spec.flops)) ** (1 + softness)
        read = (2 * weights / (bandwidth * spec.memory_bytes_per_s)) ** (1 + softness)
        return np.asarray((computed + read) ** (1 / (1 + softness)) + launches)

    def others(x: Array) -> Array:
        return np.asarray(np.exp(x[0]) + tokens * moved / (np.exp(x[1]) * spec.memory_bytes_per_s))

    octave = np.floor(np.log2(tokens))
    weight = 1 / np.array([np.count_nonzero(octave == o) for o in octave])
    x, _ = fit(products, products_s, [0.7, 0.8, 0.5, 2e-5], weight)
    y, _ = fit(others, others_s, [2e-5, 0.6], weight)
    values = dict(zip(("compute", "bandwidth", "softness", "layer_s"), np.exp(x), strict=True))
    values |= {
        "softness": 1 + np.exp(x[2]),
        "layer_s": np.exp(x[3]) + np.exp(y[0]),
        "elementwise": np.exp(y[1]),
    }
    error = np.abs((products(x) + others(y)) / (products_s + others_s) - 1)
    show(spec.name, values, error[1::2])
    decoding = (tokens <= 256)[1::2]
    show(f"{spec.name} up to 256 tokens", {}, error[1::2][decoding])
    typical = products(np.log([TYPICAL.compute, TYPICAL.bandwidth, TYPICAL.softness - 1, TYPICAL.layer_s]))
    typical += others(np.log([1e-12, TYPICAL.elementwise]))
    show(f"{spec.name} at typical shares", {}, np.abs(typical / (products_s + others_s) - 1))


def attention(path: Path, spec: ModelSpec, degree: int) -> Array:
    """Return rows of (chunk, chunk's cache, decodes, their cache, KV heads, heads, seconds)."""
    with (path / "attention.csv").open() as lines:
        table = np.array([[float(cell) for cell in row] for row in list(csv.reader(lines))[1:]])
    heads = np.full((len(table), 1), spec.heads / degree)
    return np.hstack([table[:, :4], heads * spec.kv_heads / spec.heads, heads, table[:, 4:] / 1e6])


def fit_attention(spec: DeviceSpec, rows: Array) -> None:
    """Fit decodes alone, then prompts alone, then what a mixed batch adds."""
    chunk, cached, decodes, each, kv_heads, heads, seconds = rows.T
    context, pairs = decodes * each, chunk * cached + chunk * (chunk + 1) / 2
    read_s = context * kv_heads * 512 / spec.memory_bytes_per_s
    look_s = heads * 512 / spec.flops
    alone, prompt, mixed = (chunk == 0), (decodes == 0), (chunk > 0) & (decodes > 0)

    def decode(x: Array) -> Array:
        start, head, bandwidth = np.exp(x)
        return np.asarray((start + head * decodes * kv_heads + read_s / bandwidth)[alone])

    def prefill(x: Array, which: NDArray[np.bool_]) -> Array:
        start, compute, rows_wanted = np.exp(x)
        idle = np.maximum(1, rows_wanted / (heads * np.maximum(chunk, 1)))
        return np.asarray((start + pairs * look_s / compute * idle)[which])

    x, error = fit(decode, seconds[alone], [1e-5, 2e-8, 0.8])
    show(
        spec.name, dict(zip(("decode_s", "decode_head_s", "decode_bandwidth"), np.exp(x), strict=True)), error
    )
    typical = decode(np.log([TYPICAL.decode_s, TYPICAL.decode_head_s, TYPICAL.decode_bandwidth]))
    show(f"{spec.name} decodes at typical shares", {}, np.abs(typical / seconds[alone] - 1))
    y, error = fit(lambda y: prefill(y, prompt), seconds[prompt], [1e-5, 0.5, 8e3])
    show(
        spec.name, dict(zip(("prefill_s", "prefill_compute", "prefill_rows"), np.exp(y), strict=True)), error
    )

    def both(z: Array) -> Array:
        rows_each, head = np.exp(z)
        added = (
            context * rows_each * look_s / np.exp(y[1]) + head * decodes * kv_heads + read_s / np.exp(x[2])
        )
        return np.asarray(prefill(y, mixed) + added[mixed])

    z, error = fit(both, seconds[mixed], [30, 1e-7])
    show(spec.name, dict(zip(("mixed_rows", "mixed_head_s"), np.exp(z), strict=True)), error)


def fit_experts(spec: DeviceSpec, path: Path) -> None:
    """Fit the experts of one layer, given how many of them were woken."""
    with path.open() as lines:
        tokens, woken, microseconds = np.array(
            [[float(c) for c in r.values()] for r in csv.DictReader(lines)]
        ).T
    weights = 3 * 2048 * 768  # one expert of Qwen3-30B-A3B, of which every token wakes 8

    def price(x: Array) -> Array:
        compute, bandwidth, softness, start = np.exp(x)
        computed = (2 * tokens * 8 * weights / (compute * spec.flops)) ** (1 + softness)
        read = (2 * woken * weights / (bandwidth * spec.memory_bytes_per_s)) ** (1 + softness)
        return np.asarray((computed + read) ** (1 / (1 + softness)) + start)

    x, error = fit(price, microseconds / 1e6, [0.5, 0.8, 0.5, 1e-5])
    show(
        spec.name,
        dict(zip(("experts' compute", "bandwidth", "softness - 1", "start_s"), np.exp(x), strict=True)),
        error,
    )


def fit_all_reduce(spec: DeviceSpec, path: Path) -> None:
    """Fit all-reduces of 1 to 64 MiB within a node as a ring over the data sheet's link, plus a start."""
    with path.open() as lines:
        rows = np.array(
            [
                (float(r["num_workers"]), float(r["size"]), float(r["time_stats.all_reduce.median"]) / 1e3)
                for r in csv.DictReader(lines)
                if r["num_workers"] == r["devices_per_node"] != "1" and 2**20 <= float(r["size"]) <= 2**26
            ]
        )
    ring = 2 * (rows[:, 0] - 1) / rows[:, 0] * rows[:, 1] / (spec.link_bytes_per_s or np.nan)
    x, error = fit(lambda x: np.asarray(np.exp(x[0]) + ring / np.exp(x[1])), rows[:, 2], [4e-5, 0.7])
    show(spec.name, {"NCCL start_s": np.exp(x[0]), "link": np.exp(x[1])}, error)


def show_sampler(spec: DeviceSpec, of: ModelSpec, path: Path) -> None:
    """Print the sampler's start, and its slope as bytes per sequence and vocabulary entry."""
    with path.open() as lines:
        found = [
            (float(r["sequences"]), float(r["time_us"]))
            for r in csv.DictReader(lines)
            if r["layer"] == "sampler"
        ]
    slope_s = (found[-1][1] - found[0][1]) / (found[-1][0] - found[0][0]) / 1e6
    values = {"sampler_s": found[0][1] / 1e6, "bytes": slope_s * spec.memory_bytes_per_s / of.vocab}
    show(spec.name, values, np.zeros(1))


def fit(
    price: Callable[[Array], Array], seconds: Array, guess: list[float], weight: Array | None = None
) -> tuple[Array, Array]:
    """Minimise the mean relative error of every second row; return logarithms, and the other rows' errors."""
    weights = (np.ones(len(seconds)) if weight is None else weight)[::2]

    def loss(x: Array) -> float:
        return float(np.average(np.abs(price(x)[::2] / seconds[::2] - 1), weights=weights))

    x = simplex(loss, simplex(loss, np.log(np.array(guess))))
    return x, np.abs(price(x)[1::2] / seconds[1::2] - 1)


def simplex(loss: Callable[[Array], float], start: Array) -> Array:
    """Minimise by the method of Nelder and Mead (1965)."""
    points = [start, *(start + 0.1 * unit for unit in np.eye(len(start)))]
    losses = [loss(p) for p in points]
    for _ in range(3000):
        order = np.argsort(losses)
        points, losses = [points[i] for i in order], [losses[i] for i in order]
        centre = np.mean(points[:-1], axis=0)
        reflected = 2 * centre - points[-1]
        worth = loss(reflected)
        if losses[0] <= worth < losses[-2]:
            points[-1], losses[-1] = reflected, worth
            continue
        other = 3 * centre - 2 * points[-1] if worth < losses[0] else (centre + points[-1]) / 2
        better = loss(other)
        if better < min(worth, losses[-1]):
            points[-1], losses[-1] = other, better
        elif worth < losses[0]:
            points[-1], losses[-1] = reflected, worth
        else:
            points = [points[0], *((points[0] + p) / 2 for p in points[1:])]
            losses = [loss(p) for p in points]
    return points[int(np.argmin(losses))]


def show(name: str, values: dict[str, float], error: Array) -> None:
    """Print one fit: its parameters and its held-out error."""
    parameters = ", ".join(f"{k}={v:.4g}" for k, v in values.items())
    print(f"{name}: {parameters}; error mean {error.mean():.1%}, p95 {np.quantile(error, 0.95):.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

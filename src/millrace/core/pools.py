"""Devices that prefill and devices that decode: in pools of their own, or every device doing both.

A device's decode step is taken to grow in a straight line with its sequences, as CloudMatrix-Infer's
operating points do (Zuo et al., arXiv:2506.12708). Devices are counted one by one: no minimum size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec import Struct

from millrace.core.stats import mean


class Demand(Struct, frozen=True, kw_only=True):
    """What all users together ask for: tokens of prompts and tokens of answers a second."""

    prompt_tokens_per_s: float
    answer_tokens_per_s: float


class Device(Struct, frozen=True, kw_only=True):
    """What one device does: so many prompt tokens a second, and a decode step of `floor_s` and
    `per_sequence_s` for each sequence in it."""

    prefill_tokens_per_s: float
    floor_s: float
    per_sequence_s: float

    def step_s(self, sequences: float) -> float:
        """Seconds of a decode step."""
        return self.floor_s + sequences * self.per_sequence_s

    def sequences(self, tpot_s: float) -> float:
        """Sequences that a device can decode at this time per output token; 0 below the floor."""
        return max(0.0, (tpot_s - self.floor_s) / self.per_sequence_s)

    def decode_tokens_per_s(self, tpot_s: float) -> float:
        """Tokens a second of a device that decodes as many sequences as that allows."""
        return self.sequences(tpot_s) / tpot_s


def fit_device(points: Sequence[tuple[float, float]], prefill_tokens_per_s: float) -> Device:
    """Fit to (time per output token in s, tokens a second) of a device; sequences are their product.

    Least squares over the points. Raises ValueError for fewer than two numbers of sequences.
    """
    loads = [(tpot_s * rate, tpot_s) for tpot_s, rate in points]
    if len({sequences for sequences, _ in loads}) < 2:
        raise ValueError(f"points has {len(points)} operating points; give two with different batches")
    middle, middle_s = mean(n for n, _ in loads), mean(s for _, s in loads)
    spread = sum((n - middle) ** 2 for n, _ in loads)
    slope_s = sum((n - middle) * (s - middle_s) for n, s in loads) / spread
    return Device(
        prefill_tokens_per_s=prefill_tokens_per_s,
        floor_s=middle_s - slope_s * middle,
        per_sequence_s=slope_s,
    )


def pooled(demand: Demand, device: Device, tpot_s: float) -> int:
    """Return the devices of two pools, each as large as its own demand needs.

    Raises ValueError for a time per output token that even one sequence does not keep.
    """
    rate = _decode_rate(device, tpot_s)
    prefill = ceil(demand.prompt_tokens_per_s / device.prefill_tokens_per_s)
    return prefill + ceil(demand.answer_tokens_per_s / rate)


def coupled(demand: Demand, device: Device, tpot_s: float) -> int:
    """Return the devices if every one decodes and fills what is left of each step with prompt tokens.

    The floor of a step, mostly weights to be read, is paid on all devices then; errors as in `pooled`.
    """
    _decode_rate(device, tpot_s)
    busy = demand.answer_tokens_per_s * device.per_sequence_s
    busy += demand.prompt_tokens_per_s / device.prefill_tokens_per_s
    return ceil(busy * tpot_s / (tpot_s - device.floor_s))


def _decode_rate(device: Device, tpot_s: float) -> float:
    if device.sequences(tpot_s) <= 0:
        raise ValueError(f"tpot_s is {tpot_s}; a step takes at least {device.floor_s:.4g} s: allow more")
    return device.decode_tokens_per_s(tpot_s)

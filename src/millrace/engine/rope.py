"""Rotary position embeddings (Su et al. 2021), also scaled: linear, Llama 3.1's, YaRN (Peng et al. 2023).

A head's coordinates are kept as neighbouring pairs, so that the rotation is one complex product;
`interleave` reorders weights from Hugging Face's layout, which pairs coordinate i with i + head_size / 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor


class Rope(Struct, frozen=True, kw_only=True):
    """A rotary embedding as a checkpoint describes it; `scaling` holds the keys of its kind."""

    kind: str
    theta: float
    head_size: int
    scaling: dict[str, Any]

    @property
    def supported(self) -> bool:
        """Whether this engine knows the scaling."""
        return self.kind in _FREQUENCIES

    def table(self, positions: int) -> Tensor:
        """Rotations of positions 0.. as complex numbers: (positions, head_size / 2)."""
        plain = self.theta ** -(torch.arange(0, self.head_size, 2, dtype=torch.float32) / self.head_size)
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float32), _FREQUENCIES[self.kind](self, plain)
        )
        return torch.polar(torch.full_like(angles, self._magnitude()), angles)

    def number(self, key: str) -> float:
        """A number the scaling needs; ValueError if config.json lacks it."""
        value = self.scaling.get(key)
        if not isinstance(value, int | float):
            raise ValueError(f"config.json: rope_scaling of type {self.kind!r} needs the number {key!r}")
        return value

    def _magnitude(self) -> float:
        if self.kind != "yarn":
            return 1.0
        given = self.scaling.get("attention_factor")
        return float(given) if given is not None else _temperature(self.number("factor"))


def interleave(rows: Tensor, head_size: int) -> Tensor:
    """Reorder the first axis of what makes queries or keys so that rotated pairs are neighbours."""
    halves = rows.view(-1, 2, head_size // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def rotate(heads: Tensor, rotations: Tensor) -> None:
    """Turn `heads` (tokens, heads, head_size) in place by `rotations` (tokens, 1, head_size / 2)."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(rotations)
    else:  # there are no complex numbers of 16-bit floats
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rotations))


def _unscaled(rope: Rope, frequencies: Tensor) -> Tensor:
    return frequencies


def _linear(rope: Rope, frequencies: Tensor) -> Tensor:
    return frequencies / rope.number("factor")


def _llama3(rope: Rope, frequencies: Tensor) -> Tensor:
    """Slow waves are stretched, fast ones kept, and those between mixed."""
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    turns = rope.number("original_max_position_embeddings") * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * kept + frequencies * (1 - kept) / rope.number("factor")


def _yarn(rope: Rope, frequencies: Tensor) -> Tensor:
    """Waves that turn less than `beta_slow` times over the trained context are stretched, fast ones kept."""
    low, high = _yarn_bounds(rope)
    ramp = (torch.arange(frequencies.shape[0], dtype=torch.float32) - low) / max(high - low, 0.001)
    stretched = ramp.clamp(0, 1)
    return frequencies * (1 - stretched) + frequencies / rope.number("factor") * stretched


def _yarn_bounds(rope: Rope) -> tuple[float, float]:
    trained = rope.number("original_max_position_embeddings")

    def dimension(rotations: float) -> float:
        return rope.head_size * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.scaling.get("beta_fast") or 32), dimension(rope.scaling.get("beta_slow") or 1)
    if rope.scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, rope.head_size - 1)


def _temperature(factor: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


_FREQUENCIES: dict[str, Callable[[Rope, Tensor], Tensor]] = {
    "default": _unscaled,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}

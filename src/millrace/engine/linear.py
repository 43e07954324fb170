"""Linear layers with weights arranged once, at load, in the layout the device multiplies fastest."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# oneDNN chooses its blocked layout for this many rows; it stays right for other batch sizes.
PACKED_ROWS = 32


class Linear(Protocol):
    """x (rows, inputs) -> (rows, outputs)."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Plain:
    """torch's own linear layer: CUDA, and builds of torch without oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor, /) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class Packed:
    """oneDNN's linear layer over a weight reordered at load: saves the repacking of every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_ROWS)
        self._bias = bias
        self._call = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor, /) -> Tensor:
        y: Tensor = self._call(x, self._weight, self._bias, "none", [], "")
        return y


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest linear layer for this (outputs, inputs) weight where it lies."""
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return Packed(weight, bias)
    return Plain(weight, bias)

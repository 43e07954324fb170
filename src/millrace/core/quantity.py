"""Numbers with units, as they are typed."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0}
_UNITS_BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)


def bytes_per_s(text: str) -> float:
    """Read a bandwidth like `5GB/s` or `800MiB/s`. Raises ValueError if it cannot be read or is 0."""
    found = _QUANTITY.fullmatch(text.strip().removesuffix("/s"))
    if not found or found[2] not in _UNITS_BYTES or not float(found[1]):
        raise ValueError(f"cannot read the bandwidth {text!r}; write bytes a second above 0, like 5GB/s")
    return float(found[1]) * _UNITS_BYTES[found[2]]


def size_bytes(text: str) -> float:
    """Read a size like `8TB` or `512GiB`. Raises ValueError if it cannot be read or is 0."""
    found = _QUANTITY.fullmatch(text.strip())
    if not found or found[2] not in _UNITS_BYTES or not float(found[1]):
        raise ValueError(f"cannot read the size {text!r}; write bytes above 0, like 8TB")
    return float(found[1]) * _UNITS_BYTES[found[2]]


def seconds(name: str, text: str) -> float:
    """Read a time like `45s` or `2m`. Raises ValueError, which names the option, if it cannot be read."""
    found = _QUANTITY.fullmatch(text)
    if not found or found[2] not in _UNITS_S:
        raise ValueError(f"{name} is {text!r}; write a number with a unit, like 45s or 2m")
    return float(found[1]) * _UNITS_S[found[2]]

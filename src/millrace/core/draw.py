"""Chance without state: the same names always draw the same numbers, in every process and both worlds."""

from __future__ import annotations

from hashlib import blake2b


def draw(*names: object) -> int:
    """Return the 64-bit integer that belongs to these names (their text, in this order)."""
    text = "\x1f".join(map(str, names))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def draw_below(limit: int, *names: object) -> int:
    """Return the integer in [0, limit) that belongs to these names."""
    return draw(*names) % limit

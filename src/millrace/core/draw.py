"""Chance without state: the same names always draw the same numbers, in every process and both worlds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

_BETWEEN = "\x1f"
_number = Struct(">Q").unpack


def draw(*names: object) -> int:
    """Return the 64-bit integer that belongs to these names (their text, in this order)."""
    text = _BETWEEN.join([str(name) for name in names])
    number: int = _number(blake2b(text.encode(), digest_size=8).digest())[0]
    return number


def draw_below(limit: int, *names: object) -> int:
    """Return the integer in [0, limit) that belongs to these names."""
    return draw(*names) % limit


def draw_least(ranks: Sequence[Any], *names: object) -> int:
    """Return where the least of the ranks is; of equal ones, the one that belongs to these names."""
    least = min(ranks)
    if ranks.count(least) == 1:
        return ranks.index(least)
    tied = [place for place, rank in enumerate(ranks) if rank == least]
    return tied[draw_below(len(tied), *names)]


def draw_each(first: object, names: Iterable[str], last: object) -> list[int]:
    """Return `draw(first, name, last)` for each name; what they have in common is hashed once."""
    begun, end = blake2b(f"{first}{_BETWEEN}".encode(), digest_size=8), f"{_BETWEEN}{last}"
    numbers = []
    for name in names:
        one = begun.copy()
        one.update((name + end).encode())
        numbers.append(_number(one.digest())[0])
    return numbers

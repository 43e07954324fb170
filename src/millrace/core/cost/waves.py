"""Where to split the tokens of matrix products, so that the halves take few more waves of tiles.

Source: the wave-aware split of TokenWeave (Gond et al., arXiv:2505.11329).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

# A tile of a matrix product: tokens by columns, one to a multiprocessor at a time.
TILE_TOKENS, TILE_COLUMNS = 128, 256
MULTIPROCESSORS = {"a100-80g": 108, "h100": 132, "h200": 132}
_TRIED = 4  # tiles to both sides of the middle


class Split(Struct, frozen=True):
    """The tokens of the first half, and how many times the waves of the whole both halves take together."""

    first: int
    waves: float


def halves(tokens: int, widths: Sequence[int], device: str) -> Split:
    """Split tokens for products of so many columns each: nearest to the middle among those of least waves.

    Halves are whole tiles as far as can be; of a device whose multiprocessors nobody counted, that is all.
    """
    middle = tokens / 2
    near = round(middle / TILE_TOKENS)
    tried = [n * TILE_TOKENS for n in range(near - _TRIED, near + _TRIED + 1) if 0 < n * TILE_TOKENS < tokens]
    if not tried:
        return Split(tokens // 2, 2.0)
    each = MULTIPROCESSORS.get(device)
    if each is None:
        return Split(min(tried, key=lambda first: abs(first - middle)), 1.0)

    def taken(first: int) -> int:
        return _waves(first, widths, each) + _waves(tokens - first, widths, each)

    best = min(tried, key=lambda first: (taken(first), abs(first - middle)))
    return Split(best, taken(best) / _waves(tokens, widths, each))


def _waves(tokens: int, widths: Sequence[int], each: int) -> int:
    rows = -(-tokens // TILE_TOKENS)
    return sum(-(-rows * -(-width // TILE_COLUMNS) // each) for width in widths)

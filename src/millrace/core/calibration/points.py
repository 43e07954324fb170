"""What to ask of an engine so that its answers tell what a step costs: prompts, decodes, and both at once."""

from __future__ import annotations

from itertools import product
from typing import Literal

from msgspec import Struct

from millrace.core.draw import draw

Kind = Literal["prefill", "decode", "mixed"]

LEAST_CONTEXT_TOKENS = 256
# Lengths are in 64ths of the longest context, so that the same design fits every engine.
_PARTS = 64
_PREFILLS = (1, 2, 4, 8, 12, 16, 24, 32, 48)
_PREFILLS_HELD_OUT = (3, 6, 10, 20, 40)
_DECODES = tuple(product((1, 2, 4, 8, 16), (1, 4, 16)))
_DECODES_HELD_OUT = ((2, 12), (3, 2), (6, 8), (12, 3))
_DECODE_PARTS = 128  # in all streams together: an engine's cache may not have room for more
_MIXED = tuple(product((1, 4, 8), (2, 8, 20)))
_MIXED_HELD_OUT = ((2, 4), (3, 16), (6, 12))
_MIXED_CONTEXT = 4


class Point(Struct, frozen=True, kw_only=True):
    """`streams` sequences that decode on prompts of `context_tokens`, and a prompt that arrives meanwhile.

    No `prompt_tokens` means that nothing arrives, no `streams` that the prompt finds the engine idle. A
    point that is `held_out` is measured to see how far off the fit is, and never fitted.
    """

    kind: Kind
    streams: int = 0
    context_tokens: int = 0
    prompt_tokens: int = 0
    held_out: bool = False


def points(context_tokens: int) -> list[Point]:
    """Return the points for an engine whose sequences have at most `context_tokens`, in a mixed order.

    Raises ValueError for fewer than 256 tokens: the points would lie too close together.
    """
    if context_tokens < LEAST_CONTEXT_TOKENS:
        raise ValueError(f"context_tokens is {context_tokens}; it must be at least {LEAST_CONTEXT_TOKENS}")
    part = context_tokens // _PARTS
    found = [
        one
        for held_out, designs in (
            (False, (_PREFILLS, _DECODES, _MIXED)),
            (True, (_PREFILLS_HELD_OUT, _DECODES_HELD_OUT, _MIXED_HELD_OUT)),
        )
        for one in _designed(*designs, part=part, held_out=held_out)
    ]
    return sorted(found, key=lambda one: draw("calibration", one))


def _designed(
    prefills: tuple[int, ...],
    decodes: tuple[tuple[int, int], ...],
    mixed: tuple[tuple[int, int], ...],
    *,
    part: int,
    held_out: bool,
) -> list[Point]:
    alone = [Point(kind="prefill", prompt_tokens=n * part, held_out=held_out) for n in prefills]
    decoding = [
        Point(kind="decode", streams=n, context_tokens=parts * part, held_out=held_out)
        for n, parts in decodes
        if n * parts <= _DECODE_PARTS
    ]
    both = [
        Point(
            kind="mixed",
            streams=n,
            context_tokens=_MIXED_CONTEXT * part,
            prompt_tokens=parts * part,
            held_out=held_out,
        )
        for n, parts in mixed
    ]
    return [*alone, *decoding, *both]

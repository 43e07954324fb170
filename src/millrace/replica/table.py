"""The KV blocks that one sequence holds, and the segments of content that several of them share."""

from __future__ import annotations

from msgspec import Struct


class Segment(Struct, eq=False, gc=False):
    """Blocks in a row, held by so many tables, all of it by each. Without `contents` it cannot be found.

    When its front is cut off, that is a segment of its own, the `front` of this one.
    """

    blocks: list[int]
    contents: list[int]
    holders: int = 1
    front: Segment | None = None


class Table(list[int]):
    """The blocks that one sequence holds, in order. The first of them were published, and are in `segments`.

    Each comes with its number of blocks when the sequence got it: those cut off since are its `front`.
    """

    segments: tuple[tuple[Segment, int], ...] = ()

"""What one iteration brought about."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from millrace.replica.sequence import Sequence


class End(Struct, frozen=True, eq=False):
    """A sequence that is complete: its last token ended it (`stop`), or it has `max_tokens` (`length`)."""

    sequence: Sequence
    why: Literal["length", "stop"]


class Progress(Struct, frozen=True, eq=False):
    """The seconds an iteration took, who got a token (`first`: for the first time), and who is complete."""

    seconds: float
    emitted: list[Sequence]
    first: list[Sequence]
    ended: list[End]

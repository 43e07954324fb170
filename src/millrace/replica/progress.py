"""What iterations brought about."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Literal

from msgspec import Struct

from millrace.replica.sequence import Sequence


class End(Struct, frozen=True, eq=False):
    """A sequence that is complete: its last token ended it (`stop`), or it has `max_tokens` (`length`)."""

    sequence: Sequence
    why: Literal["length", "stop"]


class Progress(Struct, frozen=True, eq=False):
    """Who got a token for the first time, and who is complete."""

    first: Many[Sequence] = ()
    ended: Many[End] = ()


NOTHING = Progress()


class Stepped(Progress, frozen=True, eq=False, kw_only=True):
    """The progress of one iteration: the seconds it took, and everybody who got a token."""

    seconds: float
    emitted: Many[Sequence]

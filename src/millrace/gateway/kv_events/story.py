"""What one publisher has said so far, and what is missing of it; no IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from millrace.core.event import CacheChange, CacheCleared
from millrace.gateway.kv_events.decoding import Decoder, GarbageError
from millrace.gateway.kv_events.numbering import Numbering

END = b"\xff" * 8
"""The number behind the last batch that is told again."""

Tell = Callable[[tuple[CacheChange, ...]], None]


class Story:
    """Tells what happens to a prefix cache, and that nothing is known of it whenever that is so.

    `counts` are batches by what became of them: followed, replayed (told again; followed as well), garbage,
    dropped (what was known, since something was missed for good), afresh (begun anew).
    """

    def __init__(self, decoder: Decoder, tell: Tell) -> None:
        self.counts: Counter[str] = Counter()
        self._decoder, self._tell = decoder, tell
        self._numbering = Numbering()

    @property
    def due(self) -> int:
        """The number of the first batch that is not known."""
        return self._numbering.due

    def begin(self) -> None:
        """Know nothing, and expect a publisher's first batch: there is a new connection, or a new engine."""
        self._numbering = Numbering()
        self._begin_anew()

    def lacks(self, frames: list[bytes]) -> bool:
        """Note which batch has come; return whether one should first ask for others in front of it."""
        if not _is_batch(frames):
            self.counts["garbage"] += 1
            return False
        number = int.from_bytes(frames[1], "big")
        place = self._numbering.place(number)
        if place == "restart":
            self._numbering.restart()
            self._begin_anew()
        return place in ("gap", "restart") and number != self.due

    def hear(self, frames: list[bytes]) -> None:
        """Follow a batch that has come, unless it is known; what is still missing in front of it is lost."""
        if _is_batch(frames):
            number = int.from_bytes(frames[1], "big")
            if number >= self.due:
                self._follow(number, frames[2])

    def hear_again(self, frames: list[bytes]) -> bool:
        """Follow a batch that was asked for; return whether there may be more."""
        if len(frames) < 2 or len(frames[-2]) != 8 or frames[-2] == END:
            return False
        number = int.from_bytes(frames[-2], "big")
        if number >= self.due:
            self.counts["replayed"] += 1
            self._follow(number, frames[-1])
        return True

    def _follow(self, number: int, payload: bytes) -> None:
        if number != self.due:
            self._drop()
        self._numbering.took(number)
        try:
            changes = self._decoder.read(payload)
        except GarbageError:
            self.counts["garbage"] += 1
            self._drop()
            return
        self.counts["followed"] += 1
        if changes:
            self._tell(changes)

    def _begin_anew(self) -> None:
        self._decoder.begin_anew()
        self._tell((CacheCleared(),))
        self.counts["afresh"] += 1

    def _drop(self) -> None:
        """Know nothing any more; a publisher's beginning is not missed, since nothing was known before."""
        if self.due:
            self._tell((CacheCleared(),))
            self.counts["dropped"] += 1


def _is_batch(frames: list[bytes]) -> bool:
    return len(frames) == 3 and len(frames[1]) == 8

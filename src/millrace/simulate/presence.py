"""For how long each replica of a simulated fleet is there to be paid for."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Presence:
    """Since when each replica is there, in whatever phase but gone, and for how long it was before.

    The absent ones are not there at first.
    """

    def __init__(self, replicas: Iterable[str], *, absent: Collection[str] = ()) -> None:
        self._spells: dict[str, list[list[float]]] = {
            replica: [[0.0, 0.0] if replica in absent else [0.0]] for replica in replicas
        }

    def leave(self, replica: str, now_s: float) -> None:
        """Note that it is gone, if it was there."""
        if len(self._spells[replica][-1]) == 1:
            self._spells[replica][-1].append(now_s)

    def come(self, replica: str, now_s: float) -> None:
        """Note that it is there, if it was gone."""
        if len(self._spells[replica][-1]) == 2:
            self._spells[replica].append([now_s])

    def seconds(self, replica: str, end_s: float) -> float:
        """Return for how many of the seconds until `end_s` it was there."""
        spells = ((spell[0], spell[-1] if len(spell) == 2 else end_s) for spell in self._spells[replica])
        return sum(max(0.0, min(last, end_s) - first) for first, last in spells)

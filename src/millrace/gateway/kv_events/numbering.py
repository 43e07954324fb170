"""Where in its publisher's life a batch belongs, by its sequence number; no IO."""

from __future__ import annotations

from typing import Literal

Place = Literal["next", "known", "gap", "restart"]


class Numbering:
    """Publishers count their batches from 0. `due` is the first one that is not known yet.

    What was replayed comes once more over the subscription, so a number below `due` is no news. But a
    subscription itself never counts backwards, unless its publisher began anew.
    """

    def __init__(self) -> None:
        self.due = 0
        self._latest = -1

    def place(self, number: int) -> Place:
        """Return where a batch belongs that came over the subscription."""
        if number <= self._latest:
            self._latest = number
            return "restart"
        self._latest = number
        if number < self.due:
            return "known"
        return "next" if number == self.due else "gap"

    def took(self, number: int) -> None:
        """Note that a batch was followed."""
        self.due = number + 1

    def restart(self) -> None:
        """Expect a publisher's first batch; what it said last still tells whether it begins anew again."""
        self.due = 0

"""How fast the queue of each model drains: by its latest finishes."""

from __future__ import annotations

from collections import deque

RECENT = 64  # finishes that the rate is measured over


class Drains:
    """While nothing is known of a rate, a queue takes `unknown_s`."""

    def __init__(self, unknown_s: float) -> None:
        self._unknown_s = unknown_s
        self._finishes: dict[str, deque[float]] = {}

    def note(self, model: str, now_s: float) -> None:
        """Note that a request ended well."""
        finishes = self._finishes.get(model)
        if finishes is None:
            finishes = self._finishes[model] = deque(maxlen=RECENT)
        finishes.append(now_s)

    def seconds(self, model: str, in_front: int, now_s: float) -> float:
        """Predict when a queue of so many requests, and one more, is gone, at the recent rate."""
        finishes = self._finishes.get(model, deque[float]())
        if len(finishes) < 2 or now_s <= finishes[0]:
            return self._unknown_s
        rate_per_s = (len(finishes) - 1) / (now_s - finishes[0])
        return (in_front + 1) / rate_per_s

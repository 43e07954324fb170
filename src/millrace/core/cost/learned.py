"""What steps take, learnt from those that an engine has just made."""

from __future__ import annotations

from collections import deque

from millrace.core.cost.least_squares import nearest
from millrace.core.cost.shape import StepShape

_LEAST = 16  # steps before anything is predicted
_WINDOW = 64
_EVERY = 16
# A step of more than so many times the tokens of any that was seen may take any time.
_REACH = 2


class Learned:
    """Predicts a step by the last steps of the same engine: a line in tokens, and in tokens looked at.

    It says None, not known, before it has seen 16 steps, and of steps far larger than those it remembers.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[StepShape, float]] = deque(maxlen=_WINDOW)
        self._line: list[float] = []
        self._most_tokens = 0
        self._unread = 0

    def see(self, shape: StepShape, seconds: float) -> None:
        """Note what a step took."""
        if not (seconds > 0 and shape.tokens):
            return
        self._seen.append((shape, seconds))
        self._unread += 1
        if self._unread >= _EVERY and len(self._seen) >= _LEAST:
            self._unread = 0
            self._line = nearest([_features(one) for one, _ in self._seen], [s for _, s in self._seen])
            self._most_tokens = max(one.tokens for one, _ in self._seen)

    def step_s(self, shape: StepShape) -> float | None:
        """Seconds that a step will take; None where that is not known."""
        if not self._line or shape.tokens > _REACH * self._most_tokens:
            return None
        return sum(x * y for x, y in zip(self._line, _features(shape), strict=True))


def _features(shape: StepShape) -> tuple[int, ...]:
    return (1, shape.tokens, shape.decode_context_tokens, shape.prefill_attended_tokens)

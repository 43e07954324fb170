"""What is to be done every so many seconds, by the time that events tell."""

from __future__ import annotations


class Period:
    """Says when another `period_s` have passed; the first begin when it is asked first."""

    __slots__ = ("_period_s", "_since_s")

    def __init__(self, period_s: float) -> None:
        if not period_s > 0:
            raise ValueError(f"a period is {period_s} s; it must be above 0")
        self._period_s = period_s
        self._since_s: float | None = None

    def is_over(self, now_s: float) -> bool:
        """Whether it is time, which it is once for each period."""
        if self._since_s is not None and now_s - self._since_s < self._period_s:
            return False
        first, self._since_s = self._since_s is None, now_s
        return not first

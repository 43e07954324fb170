"""Prefix knowledge that ages: what was not sent again for a while is no longer believed to be there.

Source: the time to live of the approximate index in NVIDIA Dynamo's router (120 s there).
"""

from __future__ import annotations

from millrace.control.clock import Clock
from millrace.control.prefixes import SentPrefixes
from millrace.core.request import Request


class AgingPrefixes:
    """Two indexes that take turns, so that forgetting costs nothing: the younger one learns what is sent.

    Every half of `ttl_s` the younger becomes the older one, which is dropped. So a prompt is remembered for
    at least half of `ttl_s` after it was last sent, and never longer than `ttl_s`.
    """

    __slots__ = ("_budget_bytes", "_clock", "_half_s", "_old", "_turn_s", "_young")

    def __init__(self, budget_bytes: int, *, clock: Clock, ttl_s: float) -> None:
        self._budget_bytes, self._clock, self._half_s = budget_bytes // 2, clock, ttl_s / 2
        self.forget()

    @property
    def held_bytes(self) -> int:
        """Memory both indexes take now."""
        return self._young.held_bytes + self._old.held_bytes

    def matched_tokens(self, request: Request) -> int:
        """Return how many leading prompt tokens were sent before, and not too long ago."""
        self._age()
        return max(self._young.matched_tokens(request), self._old.matched_tokens(request))

    def matched_by_medium(self, request: Request) -> tuple[int, int, int]:
        """Return them as being on the device: of other media nothing is known."""
        return self.matched_tokens(request), 0, 0

    def remember(self, request: Request) -> int:
        """Note that the prompt was sent, and return how many of its leading tokens had been before."""
        matched = self.matched_tokens(request)
        self._young.remember(request)
        return matched

    def forget(self) -> None:
        """Drop everything: the replica restarted with an empty cache."""
        self._old, self._young = SentPrefixes(self._budget_bytes), SentPrefixes(self._budget_bytes)
        self._turn_s = self._clock.now_s + self._half_s

    def _age(self) -> None:
        now_s, half_s = self._clock.now_s, self._half_s
        if now_s < self._turn_s:
            return
        if now_s >= self._turn_s + half_s:
            self.forget()
        else:
            self._old, self._young = self._young, SentPrefixes(self._budget_bytes)
            self._turn_s += half_s

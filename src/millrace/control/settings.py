"""How patient a fleet is: attempts, queue bounds and memory for prefix knowledge."""

from __future__ import annotations

from math import inf

from msgspec import UNSET, Struct, UnsetType

from millrace.control.budget import RetryBudget


class ControlSettings(Struct, frozen=True, kw_only=True):
    """Settings of the controller itself; policies carry their own.

    A request is tried on at most `max_attempts` replicas, all before its first token, and all requests
    together no more often than the `retry_budget` allows; unset, as in logs from before there was one, it
    allows everything. While no replica can take a request, it is held for at most `max_hold_s`, among at
    most `max_held` others of its model. Each replica's prefix index may take `prefix_index_bytes` of memory,
    or twice that if prompts have only one block each.
    """

    max_attempts: int = 3
    max_held: int = 1024
    max_hold_s: float = 30.0
    prefix_index_bytes: int = 8 << 20
    retry_budget: RetryBudget | UnsetType = UNSET

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_held", "prefix_index_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.max_hold_s < inf:
            raise ValueError(f"max_hold_s is {self.max_hold_s}; it must be a number of seconds from 0")

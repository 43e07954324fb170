"""How patient a fleet is: attempts, queue bounds and memory for prefix knowledge."""

from __future__ import annotations

from math import inf
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from millrace.control.budget import RetryBudget
from millrace.control.queue_settings import NO_RULES, QueueSettings
from millrace.core.ways import Assumed

PrefixKnowledge = Literal["none", "sent", "answers", "events"]


class ControlSettings(Struct, frozen=True, kw_only=True):
    """Settings of the controller itself; policies carry their own.

    A request is tried on at most `max_attempts` replicas, all before its first token, and all requests
    together no more often than the `retry_budget` allows; unset, as in logs from before there was one, it
    allows everything. While no replica can take a request, it is held for at most `max_hold_s`, among at most
    `max_held` others of its model. At most `max_waiting` requests wait at a replica for their first token;
    unset, as many as the routing policy sends there. At most `max_in_flight` are with a replica at all;
    unset, any number. Who is held goes on in the order of the queueing policy. Each replica's prefix index
    may take `prefix_index_bytes` of memory, or twice that if prompts have only one block each.

    `prefix_knowledge` says from what it is known which prompt blocks a replica holds: from nothing, from what
    was sent to it (unset as well), from that as far as answers and specs show that a cache reaches back, or
    from what its engine says of its cache. What was sent is believed to
    be there for `prefix_ttl_s`; if that is unset, as long as there is memory, or for 2 s under `events`.

    What else holds for the queue is in `queue`; unset, as in logs from before there was one, nothing does,
    and refusals give no reason for programs to read.

    Answers leave a replica that drains, each by the way that is predicted to be soonest, with `leaving` for
    what is not known; unset, they end there.

    With `log_scores` each Dispatch carries what the routing policy weighed, which costs as much as deciding
    once more, and makes logs several times as long.
    """

    max_attempts: int = 3
    max_held: int = 1024
    max_hold_s: float = 30.0
    prefix_index_bytes: int = 8 << 20
    retry_budget: RetryBudget | UnsetType = UNSET
    prefix_knowledge: PrefixKnowledge | UnsetType = UNSET
    prefix_ttl_s: float | UnsetType = UNSET
    max_waiting: int | UnsetType = UNSET
    log_scores: bool | UnsetType = UNSET
    queue: QueueSettings | UnsetType = UNSET
    max_in_flight: int | UnsetType = UNSET
    leaving: Assumed | UnsetType = UNSET

    @property
    def rules(self) -> QueueSettings:
        """The rules of the queue."""
        return NO_RULES if self.queue is UNSET else self.queue

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_held", "prefix_index_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.queue is not UNSET and sum(band.reserved for band in self.queue.bands) >= self.max_held:
            raise ValueError(f"max_held is {self.max_held}; it must be more than the bands have reserved")
        for name in ("max_waiting", "max_in_flight"):
            if getattr(self, name) is not UNSET and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1, or unset")
        if not 0 <= self.max_hold_s < inf:
            raise ValueError(f"max_hold_s is {self.max_hold_s}; it must be a number of seconds from 0")
        if self.prefix_ttl_s is not UNSET and not 0 < self.prefix_ttl_s < inf:
            raise ValueError(f"prefix_ttl_s is {self.prefix_ttl_s}; it must be a number of seconds above 0")

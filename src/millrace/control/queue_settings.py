"""How many may wait, for how long, who is not to be overtaken, and who is turned away rather than held.

Sources: flow control of llm-d's router (bands of priorities with limits of their own, the saturation
detector, sheddable requests) and the priority admission of SGLang's gateway (reserved floors, promotion of
who would starve).
"""

from __future__ import annotations

from math import inf
from typing import Literal

from msgspec import Struct

DropLate = Literal["never", "deadline", "slo"]


class Band(Struct, frozen=True, kw_only=True):
    """Requests of this priority and of those above it, up to the next band's; the lowest takes all below too.

    At most `max_held` of them are held per model, for at most `max_hold_s`; None leaves it to what holds for
    all. `reserved` places in the queue are taken by nobody else, and while some of them are held, at least
    this `share` of those sent from the queue are theirs, in the order of arrival if the policy gives less.
    """

    priority: int
    max_held: int | None = None
    max_hold_s: float | None = None
    reserved: int = 0
    share: float = 0.0

    def __post_init__(self) -> None:
        name = f"of the band of priority {self.priority}"
        if self.max_held is not None and self.max_held < 1:
            raise ValueError(f"max_held {name} is {self.max_held}; it must be at least 1, or left out")
        if self.max_hold_s is not None and not 0 <= self.max_hold_s < inf:
            raise ValueError(
                f"max_hold_s {name} is {self.max_hold_s}; it must be seconds from 0, or left out"
            )
        if self.reserved < 0:
            raise ValueError(f"reserved {name} is {self.reserved}; it must be a number of places from 0")
        if self.max_held is not None and self.reserved > self.max_held:
            raise ValueError(
                f"reserved {name} is {self.reserved}, and max_held {self.max_held}; reserve less"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {name} is {self.share}; it must be from 0 to 1")


class Saturation(Struct, frozen=True, kw_only=True):
    """When a replica has as much to do as it should: llm-d's utilization detector, with its thresholds.

    It has if `waiting` requests or more have no first token yet, or `kv_usage` of its KV cache is taken, or
    nobody knows: its last report is older than `stale_after_s` (four scrapes, as there) or says neither.
    """

    waiting: int = 5
    kv_usage: float = 0.8
    stale_after_s: float = 4.0

    def __post_init__(self) -> None:
        if self.waiting < 1:
            raise ValueError(f"waiting of saturation is {self.waiting}; it must be at least 1")
        if not 0 < self.kv_usage <= 1:
            raise ValueError(f"kv_usage of saturation is {self.kv_usage}; it must be above 0 and at most 1")
        if not 0 < self.stale_after_s < inf:
            raise ValueError(
                f"stale_after_s of saturation is {self.stale_after_s}; it must be seconds above 0"
            )


class QueueSettings(Struct, frozen=True, kw_only=True):
    """Rules of the queue that hold under every queueing policy, besides `max_held` and `max_hold_s` for all.

    At most `max_held_per_tenant` requests of a tenant are held per model (None: no limit of its own). Who has
    been there for `starvation_s` is overtaken by nobody any more, in its model's queue (None: as the policy
    says; so it is under a `fair` one). With `drop_late` a request is refused as soon as its first token is
    foreseen to miss its deadline ("deadline"), or its TTFT objective too ("slo"); what cannot be foreseen is
    not dropped.

    With `saturation`, requests wait while every ready replica is saturated, and those of negative priority
    are refused. With `engine_queue` no replica is sent more than so many requests beyond those that it runs
    at a time; None leaves them to queue at the engines, however many.
    """

    bands: tuple[Band, ...] = ()
    max_held_per_tenant: int | None = None
    starvation_s: float | None = 20.0
    drop_late: DropLate = "never"
    saturation: Saturation | None = None
    engine_queue: int | None = None

    def __post_init__(self) -> None:
        if len({band.priority for band in self.bands}) < len(self.bands):
            raise ValueError("bands: each priority may begin one band")
        if sum(band.share for band in self.bands) > 1 + 1e-9:
            raise ValueError("bands: their shares are more than 1 together; promise less")
        if self.max_held_per_tenant is not None and self.max_held_per_tenant < 1:
            raise ValueError(f"max_held_per_tenant is {self.max_held_per_tenant}; it must be at least 1")
        if self.starvation_s is not None and not 0 <= self.starvation_s < inf:
            raise ValueError(f"starvation_s is {self.starvation_s}; it must be a number of seconds from 0")
        if self.engine_queue is not None and self.engine_queue < 0:
            raise ValueError(f"engine_queue is {self.engine_queue}; it must be a number of requests from 0")


NO_RULES = QueueSettings(starvation_s=None)
"""What holds where nothing was said, as in logs from before there were such settings."""

"""What replicas carry, by the controller's books and the engines' reports; the unknown is taken to be bad.

Reports come late or not at all, and tell of what other gateways sent, so a load is what is on the books, or
what was reported if that is more. A replica without a fresh report is assumed to carry as much beside the
books as the worst of those that have one: never nothing, and never so much that nobody tries it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.core.fleet import ReplicaView
from millrace.core.replica import Limits, ReplicaSpec, Report

STALE_AFTER_S = 10.0
ENGINE_DEFAULTS = Limits()


def reported(replica: ReplicaView, now_s: float) -> Report | None:
    """Return what the engine said of itself in the last seconds, None if it said nothing."""
    report = replica.report
    return None if report is None or report.now_s < now_s - STALE_AFTER_S else report


def waiting_requests(replicas: Sequence[ReplicaView], now_s: float) -> list[int]:
    """Return how many requests have no first token yet, by replica."""
    said = [report.waiting if (report := reported(r, now_s)) else None for r in replicas]
    return cautious([r.waiting for r in replicas], said)


def running_requests(replicas: Sequence[ReplicaView], now_s: float) -> list[int]:
    """Return how many requests have a first token and no last one yet, by replica."""
    said = [report.running if (report := reported(r, now_s)) else None for r in replicas]
    return cautious([r.running for r in replicas], said)


def cautious(booked: Sequence[int], said: Sequence[int | None]) -> list[int]:
    """Return the larger of what is on the books and what was said; who said nothing is as bad as any."""
    beside = [what - mine for what, mine in zip(said, booked, strict=True) if what is not None]
    worst = max(0, max(beside, default=0))
    return [
        mine + worst if what is None else max(mine, what) for what, mine in zip(said, booked, strict=True)
    ]


def kv_usages(replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
    """Return the share of the KV cache that is taken or waited for, by replica; more than 1 if it lacks room.

    Prompts that are queued or on the way count in full: the reports do not know of them yet.
    """
    memory = kv_memory(replicas, now_s)
    return [
        (held + r.queued_tokens + r.coming_tokens) / capacity
        for r, (held, capacity) in zip(replicas, memory, strict=True)
    ]


def kv_usage(replica: ReplicaView, now_s: float) -> float | None:
    """Return the share of one replica's KV cache as `kv_usages` does, None if it is unknown."""
    return kv_usages([replica], now_s)[0] if _kv_free_tokens(replica, now_s) is not None else None


def kv_memory(replicas: Sequence[ReplicaView], now_s: float) -> list[tuple[float, int]]:
    """Return the tokens that the KV cache holds, and those it can hold, by replica; queued ones are not held.

    A cache of unknown size is taken to be as small as the smallest known one, or of the usual size.
    """
    assumed = 0
    memory: list[tuple[float, int]] = []
    unknown, worst = [], 0.0
    spec: ReplicaSpec | None = None
    capacity = 0
    for place, replica in enumerate(replicas):
        if replica.spec is not spec:
            spec = replica.spec
            capacity = _capacity(spec.limits) or (assumed := assumed or _smallest(replicas))
        booked, free = replica.context_tokens, _kv_free_tokens(replica, now_s)
        if free is None:
            unknown.append(place)
        elif (beside := capacity - free - booked) > 0:
            worst = max(worst, beside / capacity)
            booked += beside
        memory.append((booked, capacity))
    for place in unknown if worst else ():
        held, capacity = memory[place]
        memory[place] = held + worst * capacity, capacity
    return memory


def _kv_free_tokens(replica: ReplicaView, now_s: float) -> int | None:
    """Free tokens of a cache of known size, if they were reported in the last seconds."""
    report = replica.report
    if report is None or report.now_s < now_s - STALE_AFTER_S or replica.spec.limits is None:
        return None
    return report.kv_free_tokens


def _capacity(limits: Limits | None) -> int:
    return limits.kv_blocks * limits.block_tokens if limits else 0


def _smallest(replicas: Iterable[ReplicaView]) -> int:
    known = (capacity for r in replicas if (capacity := _capacity(r.spec.limits)))
    return min(known, default=_capacity(ENGINE_DEFAULTS))

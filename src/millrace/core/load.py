"""What replicas carry, by the controller's books and the engines' reports; the unknown is taken to be bad.

Reports come late or not at all, and tell of what other gateways sent, so a load is what is on the books, or
what was reported if that is more. A replica without a fresh report is assumed to carry as much beside the
books as the worst of those that have one: never nothing, and never so much that nobody tries it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.core.fleet import ReplicaView
from millrace.core.replica import Limits

STALE_AFTER_S = 10.0
ENGINE_DEFAULTS = Limits()


def waiting_requests(replicas: Sequence[ReplicaView], now_s: float) -> list[int]:
    """Return how many requests have no first token yet, by replica."""
    oldest_s = now_s - STALE_AFTER_S
    said = [
        report.waiting if (report := r.report) is not None and report.now_s >= oldest_s else None
        for r in replicas
    ]
    return cautious([r.waiting for r in replicas], said)


def running_requests(replicas: Sequence[ReplicaView], now_s: float) -> list[int]:
    """Return how many requests have a first token and no last one yet, by replica."""
    oldest_s = now_s - STALE_AFTER_S
    said = [
        report.running if (report := r.report) is not None and report.now_s >= oldest_s else None
        for r in replicas
    ]
    return cautious([r.running for r in replicas], said)


def cautious(booked: Sequence[int], said: Sequence[int | None]) -> list[int]:
    """Return the larger of what is on the books and what was said; who said nothing is as bad as any."""
    worst = 0
    for mine, what in zip(booked, said, strict=True):
        if what is not None and what - mine > worst:
            worst = what - mine
    return [
        mine + worst if what is None else what if what > mine else mine
        for mine, what in zip(booked, said, strict=True)
    ]


def kv_usages(replicas: Sequence[ReplicaView], now_s: float) -> list[float]:
    """Return the share of the KV cache that is taken or waited for, by replica; more than 1 if it lacks room.

    Prompts that are queued or on the way count in full: the reports do not know of them yet.
    """
    held, sizes = kv_memory(replicas, now_s)
    return [
        (tokens + r.queued_tokens + r.coming_tokens) / size
        for r, tokens, size in zip(replicas, held, sizes, strict=True)
    ]


def kv_usage(replica: ReplicaView, now_s: float) -> float | None:
    """Return the share of one replica's KV cache as `kv_usages` does, None if it is unknown."""
    report = replica.report
    if report is None or report.now_s < now_s - STALE_AFTER_S:
        return None
    known = replica.spec.limits is not None and report.kv_free_tokens is not None
    return kv_usages([replica], now_s)[0] if known else None


def kv_memory(replicas: Sequence[ReplicaView], now_s: float) -> tuple[list[float], list[int]]:
    """Return the tokens that each KV cache holds, queued ones apart, and those that each can hold.

    A cache of unknown size is taken to be as small as the smallest known one, or of the usual size.
    """
    oldest_s = now_s - STALE_AFTER_S
    held: list[float] = []
    sizes: list[int] = []
    unknown, worst, smallest = [], 0.0, 0
    for replica in replicas:
        limits, report, tokens = replica.spec.limits, replica.report, replica.context_tokens
        if limits is None:
            size = smallest = smallest or _smallest(replicas)
        else:
            size = limits.kv_blocks * limits.block_tokens
        free = None if limits is None or report is None else report.kv_free_tokens
        if free is None or report is None or report.now_s < oldest_s:
            unknown.append(len(held))
        elif (beside := size - free - tokens) > 0:
            tokens += beside
            if beside > worst * size:
                worst = beside / size
        held.append(tokens)
        sizes.append(size)
    for place in unknown if worst else ():
        held[place] += worst * sizes[place]
    return held, sizes


def _smallest(replicas: Iterable[ReplicaView]) -> int:
    known = [limits for r in replicas if (limits := r.spec.limits)] or [ENGINE_DEFAULTS]
    return min(limits.kv_blocks * limits.block_tokens for limits in known)

"""Whether every replica has as much to do as it should; what is not known is taken to be so.

Source: the utilization detector of llm-d's router, which fails closed.
"""

from __future__ import annotations

from collections.abc import Iterable

from millrace.control.queue_settings import Saturation
from millrace.core.fleet import ReplicaView


def saturated(ready: Iterable[ReplicaView], limits: Saturation, now_s: float) -> bool:
    """Return whether none of these replicas has room; nobody has if there are none."""
    return all(_is_full(replica, limits, now_s) for replica in ready)


def _is_full(replica: ReplicaView, limits: Saturation, now_s: float) -> bool:
    report = replica.report
    if report is None or report.now_s < now_s - limits.stale_after_s:
        return True
    used = _kv_usage(replica)
    if report.waiting is None and used is None:
        return True
    return max(replica.waiting, report.waiting or 0) >= limits.waiting or (used or 0.0) >= limits.kv_usage


def _kv_usage(replica: ReplicaView) -> float | None:
    """Return the share of the KV cache that is taken, as its engine says; None if it does not."""
    limits, report = replica.spec.limits, replica.report
    if limits is None or report is None or report.kv_free_tokens is None:
        return None
    return 1 - report.kv_free_tokens / (limits.kv_blocks * limits.block_tokens)

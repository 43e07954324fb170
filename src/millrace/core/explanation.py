"""Why a policy sent a request where it did: what it made of each replica, in its own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.request import Request
from millrace.core.weighed import Explanation, Weighed


class Explaining(Protocol):
    """A routing policy that can tell what it weighed."""

    def explain(self, request: Request, fleet: FleetView) -> Explanation:
        """Tell what `route` goes by, for the same request in the same fleet; change nothing."""


def explanation(
    by: str,
    replicas: Sequence[ReplicaView],
    ranks: Sequence[Any],
    *,
    totals: Sequence[float],
    terms: Mapping[str, Sequence[float]],
    ttft_s: Sequence[float] | None = None,
) -> Explanation:
    """Return what was weighed, the best first. The least of the ranks wins; all else is by replica too.

    A total that is not finite is left out: such a replica is out of the question.
    """
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
    found = [
        Weighed(
            replica.id,
            places[ranks[n]],
            total=totals[n] if isfinite(totals[n]) else None,
            terms={name: values[n] for name, values in terms.items()},
            ttft_s=None if ttft_s is None else ttft_s[n],
        )
        for n, replica in enumerate(replicas)
    ]
    return Explanation(by=by, weighed=tuple(sorted(found, key=_by_place)))


def reasons(policy: Any, request: Request, fleet: FleetView, why: str) -> Explanation:
    """Ask a policy what it weighed, if it can tell; `why` are the words of its decision."""
    explain = getattr(policy, "explain", None)
    if explain is None:
        return Explanation(why=why)
    told: Explanation = explain(request, fleet)
    return Explanation(why=why, by=told.by, weighed=told.weighed)


def _by_place(weighed: Weighed) -> tuple[int, str]:
    return weighed.place, weighed.replica

"""Who waits, for a page of metrics: no more lines than there are models, bands, and a few tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

from millrace.control.flight import Flight
from millrace.control.held import Queues
from millrace.core.fleet import Waiting

TENANTS = 20  # that are named; anybody may invent more
OTHER = "other"


def waiting(queues: Queues, now_s: float) -> list[Waiting]:
    """Return who is held, by model, band and tenant. Only the tenants with most requests are named."""
    largest: Counter[str] = Counter()
    for queue in queues.values():
        largest.update(queue.tenants)
    named = {tenant for tenant, _ in largest.most_common(TENANTS)}
    return [
        Waiting(model, band.priority, tenant, held, now_s - since_s)
        for model, queue in queues.items()
        for band, line in zip(queues.bands, queue.bands, strict=True)
        for tenant, (held, since_s) in _by_tenant(line.values(), named).items()
    ]


def _by_tenant(flights: Iterable[Flight], named: Container[str]) -> dict[str, tuple[int, float]]:
    """Count flights in the order of arrival; with each count goes the arrival of the first."""
    found: dict[str, tuple[int, float]] = {}
    for flight in flights:
        tenant = flight.request.tenant if flight.request.tenant in named else OTHER
        held, since_s = found.get(tenant, (0, flight.arrived_s))
        found[tenant] = held + 1, since_s
    return found

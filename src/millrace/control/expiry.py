"""Until when requests may be held: the next moment at which one has waited for too long."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from millrace.control.flight import Flight


class Expiries:
    """Moments of held requests, the next one first; those of requests no longer held are passed over."""

    __slots__ = ("_flights", "_moments")

    def __init__(self, flights: Mapping[str, Flight]) -> None:
        self._flights = flights
        self._moments: list[tuple[float, str]] = []

    def __bool__(self) -> bool:
        return bool(self._moments)

    def add(self, flight: Flight) -> None:
        """Note that a request is held until it expires."""
        heappush(self._moments, (flight.expires_s, flight.request.id))

    def next_s(self) -> float | None:
        """When a held request expires next; None while none can."""
        while self._moments and not self._still_held(*self._moments[0]):
            heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def take(self, now_s: float) -> Flight | None:
        """Return a held request that has expired by now, None if there is none left."""
        due_s = self.next_s()
        return None if due_s is None or due_s > now_s else self._flights[heappop(self._moments)[1]]

    def _still_held(self, expires_s: float, request_id: str) -> bool:
        flight = self._flights.get(request_id)
        return flight is not None and flight.replica is None and flight.expires_s == expires_s

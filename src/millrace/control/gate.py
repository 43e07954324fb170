"""What stands between a queue and the replicas: saturation, room at the engines, and being too late."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from millrace.control.flight import Flight
from millrace.control.foresight import Foresight
from millrace.control.refusals import LATE, SATURATED, SLOW, Why
from millrace.control.saturation import saturated
from millrace.control.settings import ControlSettings
from millrace.core.fleet import FleetView, Hold, ReplicaView
from millrace.core.request import Request


class Gate:
    """Says of a request whose turn it is whether it may be sent at all, and who has no room for it.

    `foresight` is None if nobody is dropped for being late. It need not be asked for who is stopped unless it
    `watches`, nor for room unless it `counts`.
    """

    def __init__(self, settings: ControlSettings) -> None:
        rules = settings.rules
        self.foresight = None if rules.drop_late == "never" else Foresight(rules.drop_late)
        self._saturation, self._engine_queue = rules.saturation, rules.engine_queue
        self._max_waiting = None if settings.max_waiting is UNSET else settings.max_waiting
        self._most = None if settings.max_in_flight is UNSET else settings.max_in_flight
        self.counts = any(one is not None for one in (self._max_waiting, self._engine_queue, self._most))
        self.watches = self._saturation is not None or self.foresight is not None

    def stops(self, flight: Flight, view: FleetView) -> Why | Hold | None:
        """Return why a request must wait or be turned away whatever the routing policy says."""
        request = flight.request
        if self._saturation is not None and saturated(
            view.ready_for(request.model), self._saturation, view.now_s
        ):
            return SATURATED if request.priority < 0 else Hold("the fleet is saturated")
        if self.foresight is not None and self.foresight.is_late(flight, view):
            return too_late(flight)
        return None

    def sheds(self, request: Request, view: FleetView) -> bool:
        """Whether a request of negative priority that arrives is refused because of saturation."""
        if self._saturation is None:
            return False
        return saturated(view.ready_for(request.model), self._saturation, view.now_s)

    def full(self, ready: Iterable[ReplicaView]) -> frozenset[str]:
        """Return the replicas with which as many requests are, or wait, as may."""
        return frozenset(one.id for one in ready if self._has_no_room(one))

    def is_closed(self, ready: Sequence[ReplicaView]) -> bool:
        """Whether nobody has room, so that it does not matter whose turn it is."""
        return bool(ready) and all(map(self._has_no_room, ready))

    def _has_no_room(self, replica: ReplicaView) -> bool:
        if self._most is not None and replica.in_flight >= self._most:
            return True
        if self._max_waiting is not None and replica.waiting >= self._max_waiting:
            return True
        if self._engine_queue is None:
            return False
        limits = replica.spec.limits
        slots = replica.slots if limits is None else limits.sequences
        if slots is None:
            return replica.waiting >= max(1, self._engine_queue)
        return replica.in_flight >= slots + self._engine_queue


def too_late(flight: Flight) -> Why:
    """Return why a request is refused whose first token is foreseen to be late."""
    return LATE if flight.request.deadline_s is not None else SLOW

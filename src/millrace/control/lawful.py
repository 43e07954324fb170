"""Which answers of a routing policy can be carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace.core.fleet import ANSWERING, PREFILLING, Hold, Reject, ReplicaView, Route, Shift, Underway
from millrace.core.request import Request


def complaint(decision: Any, request: Request, replicas: Mapping[str, ReplicaView]) -> str | None:
    """Return what is wrong with an answer, None if nothing is."""
    if isinstance(decision, Route):
        chosen = replicas.get(decision.replica)
        if chosen is None or not _serves(chosen, request) or chosen.spec.role not in ANSWERING:
            return f"chose {decision.replica!r}, which is no ready replica of {request.model!r}"
        if decision.prefill_on is not None:
            prefiller = replicas.get(decision.prefill_on)
            if prefiller is None or prefiller is chosen or not _prefills(prefiller, request):
                return f"prefills on {decision.prefill_on!r}, which does so for nobody of {request.model!r}"
    elif not isinstance(decision, Hold | Reject):
        return f"answered {decision!r}; it must Route, Hold or Reject"
    return None


def objection(
    shift: Shift, flights: Mapping[str, Underway], replicas: Mapping[str, ReplicaView]
) -> str | None:
    """Return why a request cannot be moved, None if it can."""
    flight, target = flights.get(shift.request_id), replicas.get(shift.replica)
    if flight is None or flight.replica is None:
        return f"moves {shift.request_id!r}, which was not sent anywhere"
    if flight.prefill_on is not None or flight.moving_to is not None:
        return f"moves {shift.request_id!r}, whose KV cache is moving already"
    if shift.replica == flight.replica:
        return f"moves {shift.request_id!r} to {shift.replica!r}, where it is"
    if target is None or not _serves(target, flight.request) or target.spec.role not in ANSWERING:
        return f"moves to {shift.replica!r}, which is no ready replica of {flight.request.model!r}"
    return None


def _prefills(replica: ReplicaView, request: Request) -> bool:
    encodes = replica.spec.role == "encode" and bool(request.media)
    return _serves(replica, request) and (encodes or replica.spec.role in PREFILLING)


def _serves(replica: ReplicaView, request: Request) -> bool:
    return replica.phase == "ready" and request.model in replica.spec.models

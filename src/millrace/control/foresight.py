"""Who would be answered too late, told before any replica computes the prompt.

What is foreseen is the best that can come: from the replica that would be first, with all that its cache is
believed to hold. Where a replica's speed is not known, or prompts are not computed where they are answered,
nothing is foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from millrace.control.flight import Flight
from millrace.control.queue_settings import DropLate
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.forecast import Forecast, loading_s
from millrace.core.request import Request


class Foresight:
    """Predicts first tokens from the queues in front of the replicas, of which `forecast` must be told."""

    def __init__(self, which: DropLate) -> None:
        self.forecast = Forecast(assumed_tokens_per_s=1.0)
        self._promises = which == "slo"

    def is_late(self, flight: Flight, view: FleetView) -> bool:
        """Whether the request's first token would come too late if it were sent now."""
        due_s = self._due_s(flight)
        ready = () if due_s == inf else _foreseeable(flight.request, view)
        if not ready:
            return False
        best_s = min(self.forecast.first_tokens_s(flight.request, ready, view.now_s))
        return view.now_s + best_s > due_s

    def latest_s(self, flight: Flight, view: FleetView) -> float:
        """Return until when a replica with nothing else to do could answer in time; infinity if unknown."""
        due_s = self._due_s(flight)
        ready = () if due_s == inf else _foreseeable(flight.request, view)
        return due_s - min(self._alone_s(flight.request, ready)) if ready else inf

    def _due_s(self, flight: Flight) -> float:
        """Return from when on a first token comes too late; never for a client that has it already."""
        request = flight.request
        if flight.resumed_tokens:
            return inf
        due_s = inf if request.deadline_s is None else request.deadline_s
        if self._promises and request.slo.ttft_s is not None:
            due_s = min(due_s, flight.arrived_s + request.slo.ttft_s)
        return due_s

    def _alone_s(self, request: Request, ready: Sequence[ReplicaView]) -> list[float]:
        return [
            line.prompt_s(request.prompt_tokens, replica.prefix.matched_tokens(request))
            + loading_s(request, replica)
            for replica, line in zip(ready, self.forecast.lines(ready), strict=True)
        ]


def _foreseeable(request: Request, view: FleetView) -> Sequence[ReplicaView]:
    """Return the ready replicas if it can be told of each when it would answer, else none."""
    ready = view.ready_for(request.model)
    known = all(one.spec.role == "both" and one.spec.prefill_tokens_per_s for one in ready)
    return ready if known and not request.media else ()

"""Whose turn it is in a queue: who would starve, then a band that is owed a share, then the policy's."""

from __future__ import annotations

from millrace.control.flight import Flight
from millrace.control.held import Queue, Queues
from millrace.core.fleet import FleetView, QueueingPolicy

DUE = 1 - 1e-9  # one request's worth of shares, however they were rounded


class Turns:
    """Asks a queueing policy, within the rules of the queue that are kept whatever it answers."""

    def __init__(self, policy: QueueingPolicy, queues: Queues) -> None:
        rules = queues.rules
        self._policy = policy
        self._first = getattr(policy, "first", None)
        self._shares = [band.share for band in queues.bands] if any(b.share for b in queues.bands) else []
        # A tenant that floods would get ahead of all others as soon as its own queue is that old.
        self._starvation_s = None if getattr(policy, "fair", False) else rules.starvation_s

    @property
    def keeps_order(self) -> bool:
        """Whether the policy names who is next by itself, so that nobody knows how many are in front."""
        return self._first is not None

    def next(self, queue: Queue, model: str, view: FleetView) -> Flight | None:
        """Return who is to be placed next of a model's queue; None if nobody is put forward."""
        starving = self._starving(queue, view.now_s)
        if starving is not None:
            return starving
        if self._shares and (owed := self._owed(queue)) is not None:
            return owed
        return self._chosen(queue, model, view)

    def sent(self, queue: Queue, band: int) -> None:
        """Note that one of this band is sent, before it leaves: the bands that have others are owed more."""
        queue.sent += 1
        for place, share in enumerate(self._shares):
            credit = queue.credits[place] + share if queue.bands[place] else 0.0
            queue.credits[place] = max(0.0, credit - 1) if place == band else credit

    def _chosen(self, queue: Queue, model: str, view: FleetView) -> Flight | None:
        if self._first is not None:
            name = self._first(model, view)
            if name is not None and name not in queue:
                kind = type(self._policy)
                raise ValueError(f"{kind.__module__} puts {name!r} forward, which is not held for {model!r}")
            return None if name is None else queue[name]
        requests = (flight.request for flight in queue.values())
        chosen = next(iter(self._policy.order(requests, view)), None)
        return None if chosen is None else queue[chosen.id]

    def _starving(self, queue: Queue, now_s: float) -> Flight | None:
        if self._starvation_s is None:
            return None
        oldest = queue.oldest()
        return oldest if now_s - oldest.arrived_s >= self._starvation_s else None

    def _owed(self, queue: Queue) -> Flight | None:
        """Return the first to come of the band that is owed most, if that is at least one request."""
        held = [place for place, band in enumerate(queue.bands) if band and queue.credits[place] >= DUE]
        return queue.bands[max(held, key=queue.credits.__getitem__)].oldest() if held else None

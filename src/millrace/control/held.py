"""Who is held: the queue of each model, in the order of arrival, and whether one more has a place in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, ValuesView
from operator import attrgetter

from millrace.control.flight import Flight
from millrace.control.queue_settings import Band
from millrace.control.refusals import BAND_FULL, FULL, TENANT_FULL, Why
from millrace.control.settings import ControlSettings
from millrace.core.fleet import Held, Left
from millrace.core.request import Request

KNOWN_FROM = 8  # requests sent from a queue, before it is known how fast it drains
EVERYBODY = (Band(priority=0),)
_number = attrgetter("number")


class Arrivals:
    """Flights in the order of arrival, in which nearly all come; the others are sorted in when it matters."""

    __slots__ = ("_flights", "_latest", "_mixed")

    def __init__(self) -> None:
        self._flights: OrderedDict[str, Flight] = OrderedDict()
        self._latest, self._mixed = -1, False

    def __len__(self) -> int:
        return len(self._flights)

    def __getitem__(self, request_id: str) -> Flight:
        return self._flights[request_id]

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._flights

    def __iter__(self) -> Iterator[str]:
        return (flight.request.id for flight in self.values())

    def values(self) -> ValuesView[Flight]:
        """Return the flights, first come first."""
        if self._mixed:
            for flight in sorted(self._flights.values(), key=_number):
                self._flights.move_to_end(flight.request.id)
            self._mixed = False
        return self._flights.values()

    def oldest(self) -> Flight:
        """Return who came first."""
        return next(iter(self.values()))

    def add(self, flight: Flight) -> None:
        """Take one in."""
        if flight.number < self._latest:
            self._mixed = True
        else:
            self._latest = flight.number
        self._flights[flight.request.id] = flight

    def remove(self, request_id: str) -> None:
        """Let one go."""
        del self._flights[request_id]


class Queue(Arrivals):
    """What is held for one model. `sent` of it went to replicas since it began to be held at `since_s`.

    `credits` are what each band is owed of the next ones to be sent.
    """

    __slots__ = ("bands", "credits", "sent", "since_s", "tenants")

    def __init__(self, bands: int, now_s: float) -> None:
        super().__init__()
        self.bands = [Arrivals() for _ in range(bands)]
        self.credits = [0.0] * bands
        self.tenants: Counter[str] = Counter()
        self.since_s, self.sent = now_s, 0

    def take(self, flight: Flight, band: int) -> None:
        """Take one in that belongs to this band."""
        self.add(flight)
        self.bands[band].add(flight)
        self.tenants[flight.request.tenant] += 1

    def drop(self, flight: Flight, band: int) -> None:
        """Let one of this band go."""
        request = flight.request
        self.remove(request.id)
        self.bands[band].remove(request.id)
        self.tenants[request.tenant] -= 1
        if not self.tenants[request.tenant]:
            del self.tenants[request.tenant]

    def drain_s(self, in_front: int, now_s: float) -> float | None:
        """Predict when so many are sent, at the rate since the queue began; None if that is not known yet."""
        if self.sent < KNOWN_FROM or now_s <= self.since_s:
            return None
        return in_front * (now_s - self.since_s) / self.sent


class Queues(dict[str, Queue]):
    """The queue of each model for which somebody is held.

    `told` hears who enters and who leaves: the queueing policy, if it remembers.
    """

    def __init__(self, settings: ControlSettings) -> None:
        super().__init__()
        self.rules = settings.rules
        self.bands = tuple(sorted(self.rules.bands, key=attrgetter("priority"))) or EVERYBODY
        self.told: Callable[[Held | Left], None] | None = None
        self._priorities = [band.priority for band in self.bands]
        self._max_held = settings.max_held
        self._max_hold_s = settings.max_hold_s

    def band_of(self, request: Request) -> int:
        """Return the place of a request's band among the bands, the lowest one's being 0."""
        return max(0, bisect_right(self._priorities, request.priority) - 1)

    def patience_s(self, request: Request) -> float:
        """Return for how long a request may be held."""
        own_s = self.bands[self.band_of(request)].max_hold_s
        return self._max_hold_s if own_s is None else own_s

    def objection(self, request: Request) -> Why | None:
        """Return why there is no place for one more such request, None if there is."""
        queue = self.get(request.model)
        if queue is None:
            return None
        place = self.band_of(request)
        band, held = self.bands[place], len(queue.bands[place])
        if held >= band.reserved and self._taken(queue) >= self._max_held:
            return FULL
        if band.max_held is not None and held >= band.max_held:
            return BAND_FULL
        most = self.rules.max_held_per_tenant
        return TENANT_FULL if most is not None and queue.tenants[request.tenant] >= most else None

    def hold(self, flight: Flight, now_s: float) -> None:
        """Put a request into its model's queue."""
        request = flight.request
        queue = self.get(request.model)
        if queue is None:
            queue = self[request.model] = Queue(len(self.bands), now_s)
        queue.take(flight, self.band_of(request))
        if self.told is not None:
            self.told(Held(now_s, request, flight.number))

    def release(self, flight: Flight, now_s: float) -> None:
        """Take a request out of its queue, if it got into one before a policy failed; forget an empty one."""
        request = flight.request
        queue = self.get(request.model)
        if queue is None or request.id not in queue:
            return
        queue.drop(flight, self.band_of(request))
        if not queue:
            del self[request.model]
        if self.told is not None:
            self.told(Left(now_s, request))

    def _taken(self, queue: Queue) -> int:
        """Count the places that are taken, or kept free for a band that may still need them."""
        if len(self.bands) == 1:
            return len(queue)
        return sum(max(len(held), band.reserved) for held, band in zip(queue.bands, self.bands, strict=True))

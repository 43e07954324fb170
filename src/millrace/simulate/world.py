"""Virtual time: a heap of what comes next, the controller that decides, and the servers that carry it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, assert_never

from msgspec import Struct

from millrace.control import Controller
from millrace.core.event import (
    Action,
    Arrived,
    Cancel,
    Dispatch,
    Event,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.outcome import Outcome, Status
from millrace.replica.sequence import Sequence
from millrace.simulate.flight import Flight
from millrace.simulate.job import Job
from millrace.simulate.server import Engine

Watcher = Callable[[Event, list[Action]], None]
Happening = tuple[float, int, Callable[[Any], None], Any]
"""When, in which order among equals, what, and to whom."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What lies between a gateway and its engines.

    `to_engine_s` and `from_engine_s` are what the way costs in each direction. Engines that share a
    machine slow each other down: the k-th of `slowdowns` is by how much a step takes longer that begins
    while k of them are busy, itself included, and the last holds for all larger k (empty: each has a
    device of its own). `scrape_s` is the period of load reports (None: none).
    """

    to_engine_s: float = 0.0
    from_engine_s: float = 0.0
    slowdowns: tuple[float, ...] = ()
    scrape_s: float | None = None


class World:
    """Runs a workload to its end; every request of it becomes exactly one outcome."""

    def __init__(
        self,
        controller: Controller,
        servers: Iterable[Engine],
        *,
        finish: Callable[[Outcome], None],
        watch: Watcher | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.controller = controller
        self.servers = {server.id: server for server in servers}
        self.surroundings = surroundings or Surroundings()
        self.now_s = 0.0
        self._finish = finish
        self._watch = watch
        self._jobs: Iterator[Job] = iter(())
        self._heap: list[Happening] = []
        self._order = count()
        self._flights: dict[str, Flight] = {}
        self._tick_s: float | None = None
        self._busy = 0

    def run(self, jobs: Iterable[Job]) -> None:
        """Play the jobs, in the order of their times, until the last request has ended."""
        for server in self.servers.values():
            self._tell(Reported(self.now_s, server.id, "ready", server.spec))
        if self.surroundings.scrape_s:
            self._at(self.surroundings.scrape_s, self._scrape, self.surroundings.scrape_s)
        self._jobs = iter(jobs)
        self._await_arrival()
        heap = self._heap
        while heap:
            self.now_s, _, happen, whom = heappop(heap)
            happen(whom)

    def _at(self, time_s: float, happen: Callable[[Any], None], whom: Any) -> None:
        heappush(self._heap, (time_s, next(self._order), happen, whom))

    def _await_arrival(self) -> None:
        """Only one arrival is in the heap at a time, so a workload can be longer than memory."""
        job = next(self._jobs, None)
        if job is None:
            return
        if job.t_s < self.now_s:
            raise ValueError(
                f"request {job.request.id!r} is due at {job.t_s} s, before the one in front of it"
            )
        self._at(job.t_s, self._arrive, job)

    def _arrive(self, job: Job) -> None:
        self._flights[job.request.id] = Flight(job)
        self._await_arrival()
        self._tell(Arrived(self.now_s, job.request))

    def _tell(self, event: Event) -> None:
        actions = self.controller.on(event)
        if self._watch:
            self._watch(event, actions)
        for action in actions:
            self._perform(action)
        due_s = self.controller.next_deadline_s()
        if due_s is not None and due_s != self._tick_s:
            self._tick_s = due_s
            self._at(max(due_s, self.now_s), self._tick, None)

    def _tick(self, _: None) -> None:
        self._tell(Ticked(self.now_s))

    def _perform(self, action: Action) -> None:
        match action:
            case Dispatch():
                flight = self._flights[action.request_id]
                flight.replica = action.replica
                if self.surroundings.to_engine_s:
                    self._at(self.now_s + self.surroundings.to_engine_s, self._deliver, flight)
                else:
                    self._deliver(flight)
            case Cancel():
                self._abort(self.servers[action.replica], action.request_id)
                self._end(action.request_id, "cancelled")
            case Refuse():
                self._end(action.request_id, "refused", error=action.why)
            case _:
                assert_never(action)

    def _abort(self, server: Engine, request_id: str) -> None:
        self._interrupt(server)
        server.abort(request_id)

    def _deliver(self, flight: Flight) -> None:
        assert flight.replica is not None
        server = self.servers[flight.replica]
        try:
            server.add(flight.job)
        except ValueError as error:
            self._leave(flight.job.request.id, error=str(error))
            return
        if server.busy:
            self._interrupt(server)
        else:
            self._start(server)

    def _interrupt(self, server: Engine) -> None:
        if server.busy and server.cut(self.now_s):
            self._at(server.end_s, self._ended, server)

    def _start(self, server: Engine) -> None:
        if server.start(self.now_s, self._slowdown()):
            self._busy += 1
            self._at(server.end_s, self._ended, server)

    def _slowdown(self) -> float:
        slowdowns = self.surroundings.slowdowns
        return slowdowns[min(self._busy, len(slowdowns) - 1)] if slowdowns else 1.0

    def _ended(self, server: Engine) -> None:
        if not server.busy or server.end_s != self.now_s:
            return  # the run was cut, and has ended before
        self._busy -= 1
        progress = server.finish()
        for sequence in progress.first:
            self._hear(self._emitted, sequence)
        for end in progress.ended:
            self._leave(end.sequence.id, end.sequence)
        self._start(server)

    def _hear(self, happen: Callable[[Any], None], whom: Any) -> None:
        """Let the gateway hear of something, after the way from the engine."""
        self._at(self.now_s + self.surroundings.from_engine_s, happen, whom)

    def _emitted(self, sequence: Sequence) -> None:
        flight = self._flights.get(sequence.id)
        if flight is not None:
            flight.first_token_s = self.now_s
            self._tell(Started(self.now_s, sequence.id))

    def _leave(self, request_id: str, done: Sequence | None = None, error: str | None = None) -> None:
        self._hear(self._left, (request_id, done, error))

    def _left(self, last: tuple[str, Sequence | None, str | None]) -> None:
        request_id, done, error = last
        if request_id in self._flights:
            self._end(request_id, "completed" if done else "failed", done=done, error=error)
            self._tell(_finished(self.now_s, request_id, done))

    def _end(
        self, request_id: str, status: Status, *, done: Sequence | None = None, error: str | None = None
    ) -> None:
        flight = self._flights.pop(request_id)
        self._finish(flight.outcome(status, self.now_s, done=done, error=error))

    def _scrape(self, period_s: float) -> None:
        for server in self.servers.values():
            self._tell(Reported(self.now_s, server.id, "ready", report=server.report(self.now_s)))
        if self._flights or self._heap:
            self._at(self.now_s + period_s, self._scrape, period_s)


def _finished(now_s: float, request_id: str, done: Sequence | None) -> Finished:
    if done is None:
        return Finished(now_s, request_id)
    return Finished(now_s, request_id, done.prompt_tokens, done.generated, done.cached_tokens)

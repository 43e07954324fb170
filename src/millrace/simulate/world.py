"""The fleet in virtual time: the controller that decides, and the servers that carry it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from millrace.control import Controller
from millrace.core.event import (
    Action,
    Arrived,
    CacheChanged,
    Cancel,
    Dispatch,
    Event,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
    Ticked,
)
from millrace.core.outcome import Status
from millrace.core.replica import Phase, Report
from millrace.core.suggest import unknown
from millrace.replica.progress import Progress
from millrace.replica.sequence import Sequence
from millrace.simulate.agenda import Agenda
from millrace.simulate.engine import Engine
from millrace.simulate.faults import DOWN, WHY, Fault, late_joiners
from millrace.simulate.flight import Flight
from millrace.simulate.job import Job
from millrace.simulate.presence import Presence
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.ties import Ties

Said = tuple[str, Phase, Report | None]


class World:
    """Runs a workload to its end; every request of it becomes exactly one outcome."""

    def __init__(
        self,
        controller: Controller,
        servers: Iterable[Engine],
        ties: Ties,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.controller = controller
        self.servers = {server.id: server for server in servers}
        self.surroundings = surroundings or Surroundings()
        self._agenda, self.ended_s = Agenda(), 0.0
        self._finish, self._watch, self._follow = ties.finish, ties.watch, ties.follow
        self._tellers, self._admit = ties.tellers, ties.admit
        self._to_engine_s, self._from_engine_s = (
            self.surroundings.to_engine_s,
            self.surroundings.from_engine_s,
        )
        self._jobs: Iterator[Job] = iter(())
        self._flights: dict[str, Flight] = {}
        self._tick_s: float | None = None
        self._slowdowns = self.surroundings.slowdowns
        # Replicas that are not simply ready.
        self._away: dict[str, Phase] = dict.fromkeys(late_joiners(self.surroundings.faults), "gone")
        self._ready_s: dict[str, float] = {}
        self.presence = Presence(self.servers, absent=self._away)
        for fault in self.surroundings.faults:
            if fault.replica not in self.servers:
                raise unknown("replica", fault.replica, self.servers)

    def run(self, jobs: Iterable[Job]) -> None:
        """Play the jobs, in the order of their times, until the last request has ended."""
        for server in self.servers.values():
            self._tell(Reported(self.now_s, server.id, self._phase(server), server.spec))
        for fault in self.surroundings.faults:
            self._agenda.at(fault.at_s, self._strike, fault)
        if self.surroundings.scrape_s:
            self._agenda.at(self.surroundings.scrape_s, self._scrape, None)
        self._jobs = iter(jobs)
        self._await_arrival()
        self._agenda.play()

    @property
    def now_s(self) -> float:
        """The moment at hand."""
        return self._agenda.now_s

    def _await_arrival(self) -> None:
        """Only one arrival is on the agenda at a time, so a workload can be longer than memory."""
        job = next(self._jobs, None)
        if job is None:
            return
        if job.t_s < self._agenda.now_s:
            raise ValueError(f"request {job.request.id!r} is due at {job.t_s} s, before the one ahead of it")
        self._agenda.at(job.t_s, self._arrive, job)

    def _arrive(self, job: Job) -> None:
        self._await_arrival()
        self._come(job)

    def _come(self, job: Job) -> None:
        job = self._admit(job) if self._admit else job
        self._flights[job.request.id] = Flight(job)
        self._tell(Arrived(self._agenda.now_s, job.request))

    def _tell(self, event: Event) -> None:
        actions = self.controller.on(event)
        if self._watch:
            self._watch(event, actions)
        for action in actions:
            if isinstance(action, Dispatch):
                self._dispatch(action)
            else:
                self._dismiss(action)
        due_s = self.controller.next_deadline_s()
        if due_s is not None and due_s != self._tick_s:
            self._tick_s = due_s
            self._agenda.at(due_s, self._tell, Ticked(due_s))

    def _dispatch(self, action: Dispatch) -> None:
        flight = self._flights[action.request_id]
        flight.replica = action.replica
        if self._to_engine_s:
            self._agenda.at(self._agenda.now_s + self._to_engine_s, self._deliver, flight)
        else:
            self._deliver(flight)

    def _dismiss(self, action: Action) -> None:
        if isinstance(action, Cancel):
            self._abort(self.servers[action.replica], action.request_id)
            self._end(action.request_id, "cancelled")
        elif isinstance(action, Refuse):
            self._end(action.request_id, "refused", error=action.why)

    def _abort(self, server: Engine, request_id: str) -> None:
        if server.busy and server.cut(self.now_s):
            self._agenda.at(server.end_s, self._ended, server)
        server.abort(request_id)

    def _deliver(self, flight: Flight) -> None:
        assert flight.replica is not None
        server = self.servers[flight.replica]
        if self._away and self._phase(server) in DOWN:
            self._hear(self._failed, flight)
            return
        try:
            server.add(flight.rest)
        except ValueError as error:
            self._hear(self._rejected, (flight.job.request.id, str(error)))
            return
        if not server.busy:
            self._start(server)
        elif server.make_way(self._agenda.now_s):
            self._agenda.at(server.end_s, self._ended, server)

    def _start(self, server: Engine) -> None:
        if server.start(self._agenda.now_s, self._slowdown() if self._slowdowns else 1.0):
            self._agenda.at(server.end_s, self._ended, server)

    def _slowdown(self) -> float:
        busy = sum(server.busy for server in self.servers.values())
        return self._slowdowns[min(busy, len(self._slowdowns) - 1)]

    def _ended(self, server: Engine) -> None:
        agenda = self._agenda
        if server.end_s != agenda.now_s or not server.busy:
            return  # the run was cut, and has ended before
        self._book(server)
        # Written out once more, because most that happens in a simulation is an end and a start.
        if server.start(agenda.now_s, self._slowdown() if self._slowdowns else 1.0):
            agenda.at(server.end_s, self._ended, server)
        if self._away:
            self._retire(server)

    def _book(self, server: Engine) -> None:
        progress = server.finish()
        if progress.first or progress.ended:
            if (teller := self._tellers.get(server.id)) and (changes := teller.take()):
                heard_s = self._agenda.now_s + self._from_engine_s
                self._hear(self._tell, CacheChanged(heard_s, server.id, changes))
            self._hear(self._progressed, progress)

    def _hear(self, happen: Callable[[Any], None], whom: Any) -> None:
        """Let the gateway hear of something, after the way from the engine."""
        if self._from_engine_s:
            self._agenda.at(self._agenda.now_s + self._from_engine_s, happen, whom)
        else:
            self._agenda.soon.append((happen, whom))

    def _progressed(self, progress: Progress) -> None:
        now_s, flights = self._agenda.now_s, self._flights
        for sequence in progress.first:
            flight = flights.get(sequence.id)
            if flight is not None:
                flight.first_token_s = now_s if flight.first_token_s is None else flight.first_token_s
                self._tell(Started(now_s, sequence.id))
        for end in progress.ended:
            done = end.sequence
            if (flight := flights.get(done.id)) is not None:
                self._end(done.id, "completed", done=done)
                self._tell(Finished(now_s, done.id, *flight.counts(done)))

    def _rejected(self, last: tuple[str, str]) -> None:
        request_id, error = last
        if request_id in self._flights:
            self._end(request_id, "failed", error=error)
            self._tell(Finished(self.now_s, request_id))

    def _end(
        self, request_id: str, status: Status, *, done: Sequence | None = None, error: str | None = None
    ) -> None:
        flight = self._flights.pop(request_id)
        self.ended_s = self._agenda.now_s
        outcome = flight.outcome(status, self.ended_s, done=done, error=error)
        self._finish(outcome)
        if self._follow:
            for job in self._follow(outcome):
                self._agenda.at(job.t_s, self._come, job)

    def _scrape(self, _: None) -> None:
        said = [self._say(server) for server in self.servers.values()]
        self._hear(self._scraped, (self.now_s, said))

    def _scraped(self, scrape: tuple[float, list[Said]]) -> None:
        began_s, said = scrape
        for one in said:
            self._reported(one)
        if self._flights or self._agenda:
            assert self.surroundings.scrape_s is not None
            self._agenda.at(max(self.now_s, began_s + self.surroundings.scrape_s), self._scrape, None)

    def _say(self, server: Engine) -> Said:
        phase = self._phase(server)
        return server.id, phase, None if phase in DOWN else server.report(self.now_s)

    def _reported(self, said: Said) -> None:
        replica, phase, report = said
        self._tell(Reported(self.now_s, replica, phase, report=report))

    def _phase(self, server: Engine) -> Phase:
        return self._away.get(server.id, "ready")

    def _turn(self, server: Engine, phase: Phase) -> None:
        """Let a replica change its phase; with scrapes it is the next one that tells."""
        self._away[server.id] = phase
        if phase == "ready":
            del self._away[server.id]
        (self.presence.leave if phase == "gone" else self.presence.come)(server.id, self.now_s)
        if not self.surroundings.scrape_s:
            self._hear(self._reported, (server.id, phase, None))

    def _strike(self, fault: Fault) -> None:
        """Do what the script says, unless it is so already."""
        server = self.servers[fault.replica]
        phase = self._phase(server)
        if fault.deed == "kill" and phase != "gone":
            self._kill(server)
        elif fault.deed == "start" and phase == "gone":
            self._turn(server, "starting")
            self._ready_s[server.id] = self.now_s + server.cold_start_s
            self._agenda.at(self._ready_s[server.id], self._booted, server)
        elif fault.deed == "drain" and phase == "ready":
            self._turn(server, "draining")
            self._retire(server)

    def _kill(self, server: Engine) -> None:
        # What left the engine before is heard before: the way back keeps the order, so nothing is stale.
        self._ready_s.pop(server.id, None)
        for request_id, tokens in server.drop(self.now_s).items():
            self._lose(server, self._flights[request_id].after(server.id, tokens))
        self._turn(server, "gone")

    def _lose(self, server: Engine, flight: Flight) -> None:
        self._hear(self._failed, flight)

    def _booted(self, server: Engine) -> None:
        if self._ready_s.get(server.id) == self.now_s:  # else it was killed meanwhile
            del self._ready_s[server.id]
            self._turn(server, "ready")

    def _retire(self, server: Engine) -> None:
        if not server.busy and self._phase(server) == "draining":
            self._turn(server, "gone")

    def _failed(self, flight: Flight) -> None:
        request_id, had = flight.job.request.id, flight.had if self.surroundings.failover else 0
        if flight.first_token_s is not None and not had:
            self._end(request_id, "failed", error=WHY)
        self._tell(Failed(self.now_s, request_id, WHY, replica_down=True, resume_tokens=had or None))

"""A fleet in which requests move: queues are changed at once, and running requests take their KV cache along.

Source: live migration as in Llumnix (Sun et al., OSDI 2024). The cache is carried in stages while the source
goes on decoding, and only for the last stage, which is short, does the request stand still. The target has
blocks for a stage before it is carried, or the request stays; either side may give up at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from millrace.control import Controller
from millrace.core.event import Action, Dispatch, Failed, Move, Moved, Refuse
from millrace.core.outcome import Status
from millrace.replica.progress import End, Progress
from millrace.replica.sequence import Sequence
from millrace.simulate.engine import Engine
from millrace.simulate.flight import Flight
from millrace.simulate.handover import SplitWorld
from millrace.simulate.links import Carried, Transfer
from millrace.simulate.passage import STAGES, Passage
from millrace.simulate.server import Server
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.ties import Ties

LEFT = "it left a replica that drains"


class MovingWorld(SplitWorld):
    """A world that performs a Move.

    What an engine said of a request before it was taken away is not heard any more: an acknowledgement goes
    the way back behind it, and until that has come the request is `_stale`. All that changes an engine's
    memory is done between two of its steps: requests that are `_due` wait for the end of the one under way.
    """

    def __init__(
        self,
        controller: Controller,
        servers: Iterable[Engine],
        ties: Ties,
        surroundings: Surroundings | None = None,
        *,
        splitting: Mapping[str, Any],
        carried: Carried | None,
        moving: Mapping[str, Server],
    ) -> None:
        super().__init__(controller, servers, ties, surroundings, splitting=splitting, carried=carried)
        self._moving = moving
        self._passages: dict[str, Passage] = {}
        self._due: dict[str, list[Passage]] = {}
        self._stale: Counter[str] = Counter()

    def _dismiss(self, action: Action) -> None:
        if isinstance(action, Move):
            (self._set_out if action.running else self._shift)(action)
        elif isinstance(action, Refuse) or action.request_id in self._handovers:
            super()._dismiss(action)
        else:
            # It may have moved without the gateway knowing yet.
            replica = self._flights[action.request_id].replica
            assert replica is not None
            self._end(action.request_id, "cancelled")
            self._free(replica, action.request_id)

    def _shift(self, move: Move) -> None:
        """Take a request that has no token from one queue, and send it to the other one."""
        request_id = move.request_id
        handover = self._handovers.get(request_id)
        if handover is None:
            self._free(move.source, request_id)
        else:
            self._give_back(handover)
        self._stale[request_id] += 1
        self._hear(self._acknowledged, request_id)
        before = self._flights[request_id]
        self._flights[request_id] = Flight(
            before.job, first_token_s=before.first_token_s, had=before.had, moves=before.moves + 1
        )
        self._dispatch(Dispatch(request_id, move.replica))

    def _acknowledged(self, request_id: str) -> None:
        self._stale[request_id] -= 1
        if not self._stale[request_id]:
            del self._stale[request_id]

    def _deliver(self, flight: Flight) -> None:
        if self._is_current(flight):
            super()._deliver(flight)

    def _progressed(self, progress: Progress) -> None:
        # One after the other, as hearing of one may be the moment at which another is moved.
        for sequence in progress.first:
            if not (sequence.keeps or sequence.id in self._stale):
                super()._progressed(Progress((sequence,)))
        for end in progress.ended:
            self._completed(end)

    def _completed(self, end: End) -> None:
        if end.sequence.id not in self._stale:
            super()._progressed(Progress((), (end,)))

    def _rejected(self, last: tuple[str, str]) -> None:
        if last[0] not in self._stale:
            super()._rejected(last)

    def _failed(self, flight: Flight) -> None:
        if self._is_current(flight):
            super()._failed(flight)

    def _broken(self, last: tuple[Flight, str]) -> None:
        if self._is_current(last[0]):
            super()._broken(last)

    def _is_current(self, flight: Flight) -> bool:
        return self._flights.get(flight.job.request.id) is flight

    def _set_out(self, move: Move) -> None:
        """Let a running request begin to move, as soon as its replica has heard of it."""
        if self._moving[move.source].kv_bytes_per_token is None and not move.replayed:
            raise ValueError(f"{move.source} hands over a KV cache: say its kv_bytes_per_token")
        flight = self._flights[move.request_id]
        passage = Passage(flight, move.source, move.replica, replayed=move.replayed)
        self._passages[move.request_id] = passage
        self._agenda.at(self.now_s + self._to_engine_s, self._look, passage)

    def _look(self, passage: Passage) -> None:
        """Let a request take its next stage at the end of the step under way where it runs."""
        if passage.over:
            return
        server = self.servers[passage.source]
        if not server.busy:
            self._give_up(passage)  # nobody runs there
            return
        self._due.setdefault(server.id, []).append(passage)
        if server.cut(self.now_s):
            self._agenda.at(server.end_s, self._ended, server)

    def _ended(self, server: Engine) -> None:
        if server.id not in self._due or not server.busy or server.end_s != self.now_s:
            super()._ended(server)
            return
        self._book(server)
        staying = [one for one in self._due.pop(server.id) if not (one.over or self._goes_on(one))]
        self._start(server)
        for passage in staying:
            self._give_up(passage)
        self._retire(server)

    def _goes_on(self, passage: Passage) -> bool:
        """Begin a stage between two steps of the source; False if the request has to stay."""
        source, target = self._moving[passage.source], self._moving[passage.target]
        sequence = passage.running(source)
        if sequence is None:
            return False
        if passage.replayed:
            self._break_off(passage, sequence.generated)
        elif passage.guest is not None and passage.is_last(sequence, source, target):
            if not passage.stop(sequence, source, self.now_s):
                return False
            self._send(passage)
        elif passage.stages == STAGES:
            return False
        else:
            passage.begin_stage(sequence)
            there_s = self.now_s + self.surroundings.link.latency_s
            self._agenda.at(there_s, self._knock, (passage, sequence.generated))
        return True

    def _break_off(self, passage: Passage, tokens: int) -> None:
        """Let a request end where it runs, between two steps: after so many tokens it goes on elsewhere."""
        passage.over = True
        del self._passages[passage.request_id]
        passage.flight.had += tokens
        passage.flight.moves += 1
        self.servers[passage.source].abort(passage.request_id)
        self._hear(self._left, passage.flight)

    def _left(self, flight: Flight) -> None:
        if self._is_current(flight):
            self._tell(Failed(self.now_s, flight.job.request.id, LEFT, resume_tokens=flight.had))

    def _knock(self, asked: tuple[Passage, int]) -> None:
        """Ask the target for the blocks of a stage."""
        passage, generated = asked
        if passage.over:
            return
        if self._is_down(passage.target):
            self._give_up(passage, lost=passage.target)
            return
        try:
            passage.ask(self._moving[passage.target], generated)
        except ValueError:
            self._give_up(passage)
        else:
            self._wake(self.servers[passage.target])

    def _grant(self, server: Engine) -> None:
        super()._grant(server)
        for guest, held_tokens in self._moving[server.id].replica.batch.hosted():
            passage = self._passages[guest.id]
            if held_tokens is None:
                self._give_up(passage)
            else:
                passage.sent_tokens = max(passage.sent_tokens, held_tokens)
                # Carry what the source had, or let it stop if that is little.
                short = passage.is_short(passage.seen_tokens, self._moving[passage.source])
                (self._look if short else self._send)(passage)

    def _send(self, passage: Passage) -> None:
        each_bytes = self._moving[passage.source].kv_bytes_per_token
        assert each_bytes is not None
        passage.transfer = Transfer(
            source=passage.source,
            target=passage.target,
            bytes=max(0, passage.seen_tokens - passage.sent_tokens) * each_bytes,
            then=self._carried,
            whom=passage,
        )
        self._links.ask(passage.transfer)

    def _carried(self, passage: Passage) -> None:
        passage.transfer = None
        passage.sent_tokens = max(passage.sent_tokens, passage.seen_tokens)
        if passage.stopped_s is None:
            self._look(passage)
        else:
            self._arrive_at_target(passage, passage.stopped_s)

    def _arrive_at_target(self, passage: Passage, stopped_s: float) -> None:
        """Let the request go on at the target, and its source forget it."""
        flight, request_id = passage.flight, passage.request_id
        passage.over = True
        del self._passages[request_id]
        flight.replica = passage.target
        flight.moves += 1
        flight.paused_s += self.now_s - stopped_s
        passage.go_on(self._moving[passage.target])
        self._free(passage.source, request_id)
        self._wake(self.servers[passage.target])
        self._hear(self._settled, (flight, passage.target))

    def _settled(self, last: tuple[Flight, str]) -> None:
        flight, replica = last
        if self._is_current(flight):
            self._tell(Moved(self.now_s, flight.job.request.id, replica))

    def _give_up(self, passage: Passage, lost: str | None = None) -> None:
        """Let a request stay where it was."""
        self._drop(passage, lost)
        if passage.stopped_s is not None:
            passage.go_on(self._moving[passage.source])
            self._wake(self.servers[passage.source])
        self._hear(self._settled, (passage.flight, passage.source))

    def _drop(self, passage: Passage, lost: str | None = None) -> None:
        """Leave nothing of a passage at the target and on the links; who is lost has nothing left anyway."""
        passage.over = True
        del self._passages[passage.request_id]
        if passage.transfer is not None:
            self._links.drop(passage.transfer)
        if passage.guest is not None and lost != passage.target:
            self._free(passage.target, passage.request_id)
        for replica in (passage.source, passage.target):
            if replica != lost:
                self._retire(self.servers[replica])

    def _end(
        self, request_id: str, status: Status, *, done: Sequence | None = None, error: str | None = None
    ) -> None:
        passage = self._passages.get(request_id)
        if passage is not None:
            self._drop(passage)
        super()._end(request_id, status, done=done, error=error)

    def _lose(self, server: Engine, flight: Flight) -> None:
        passage = self._passages.get(flight.job.request.id)
        if passage is None:
            super()._lose(server, flight)
        elif server.id == passage.source:
            self._drop(passage, lost=server.id)
            super()._lose(server, flight)
        else:
            self._give_up(passage, lost=server.id)

    def _retire(self, server: Engine) -> None:
        parties = ((one.source, one.target) for one in self._passages.values())
        if not self._away or not any(server.id in party for party in parties):
            super()._retire(server)

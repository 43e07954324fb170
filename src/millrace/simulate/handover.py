"""A fleet in which some replicas compute prompts for others: the KV cache is handed over between them.

Source: the disaggregated prefilling of vLLM with NIXL, which llm-d and Dynamo build on. The prompt is sent
with one token to ask for; then the request goes to the replica that answers, which sets blocks aside, reads
the cache that it lacks from the other one, and computes the last token of the prompt itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from millrace.control import Controller
from millrace.core.event import Action, Dispatch, Failed, Prefilled
from millrace.replica.progress import Progress
from millrace.replica.sequence import Sequence
from millrace.simulate.engine import Engine
from millrace.simulate.faults import DOWN, WHY
from millrace.simulate.flight import Flight
from millrace.simulate.links import Carried, Links, Transfer
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.ties import Ties
from millrace.simulate.world import World


@dataclass(eq=False, slots=True)
class Handover:
    """An attempt at a request on two replicas; `over` once the cache has come, or something broke."""

    flight: Flight
    source: str
    target: str
    transfer: Transfer | None = None
    over: bool = False


class SplitWorld(World):
    """A world in which a Dispatch may name a replica to compute the prompt.

    The prompt's blocks stay where they were computed until the transfer is over; an attempt that breaks
    before gives back what it holds on both replicas, and what it occupies of their links.
    """

    def __init__(
        self,
        controller: Controller,
        servers: Iterable[Engine],
        ties: Ties,
        surroundings: Surroundings | None = None,
        *,
        splitting: Mapping[str, Any],
        carried: Carried | None = None,
    ) -> None:
        super().__init__(controller, servers, ties, surroundings)
        self._splitting = splitting
        self._links = Links(self._agenda, self.surroundings.link, carried)
        self._handovers: dict[str, Handover] = {}

    def _dispatch(self, action: Dispatch) -> None:
        flight = self._flights[action.request_id]
        if action.prefill_on is UNSET:
            flight.prefilled_on = None  # nor did anybody that an earlier attempt began with
            super()._dispatch(action)
            return
        flight.replica, flight.prefilled_on = action.replica, action.prefill_on
        handover = Handover(flight, action.prefill_on, action.replica)
        self._handovers[action.request_id] = handover
        self._agenda.at(self.now_s + self._to_engine_s, self._prefill, handover)

    def _prefill(self, handover: Handover) -> None:
        """Let the prompt arrive where it is to be computed."""
        if handover.over:
            return
        if self._is_down(handover.source):
            self._break(handover, handover.source)
            return
        try:
            self._splitting[handover.source].add(handover.flight.rest, prompt_only=True)
        except ValueError as error:
            self._turn_away(handover, error)
        else:
            self._wake(self.servers[handover.source])

    def _progressed(self, progress: Progress) -> None:
        kept = [end.sequence for end in progress.ended if end.sequence.keeps]
        if kept:
            first = [sequence for sequence in progress.first if not sequence.keeps]
            progress = Progress(first, [end for end in progress.ended if not end.sequence.keeps])
        super()._progressed(progress)
        for sequence in kept:
            self._prefilled(sequence)

    def _prefilled(self, sequence: Sequence) -> None:
        """Let the gateway hear that a prompt is computed: it sends the request on."""
        handover = self._handovers.get(sequence.id)
        if handover is not None:
            self._tell(Prefilled(self.now_s, sequence.id))
            self._agenda.at(self.now_s + self._to_engine_s, self._expect, (handover, sequence.cached_tokens))

    def _expect(self, sent: tuple[Handover, int]) -> None:
        """Let the request arrive where it is to be answered."""
        handover, cached_tokens = sent
        if handover.over:
            return
        if self._is_down(handover.target):
            self._break(handover, handover.target)
            return
        try:
            self._splitting[handover.target].expect(handover.flight.rest, cached_tokens)
        except ValueError as error:
            self._turn_away(handover, error)
        else:
            self._wake(self.servers[handover.target])

    def _start(self, server: Engine) -> None:
        super()._start(server)
        self._grant(server)

    def _ended(self, server: Engine) -> None:
        super()._ended(server)
        self._grant(server)

    def _grant(self, server: Engine) -> None:
        """Let the caches come for which there are blocks now."""
        for request_id, tokens in self._splitting[server.id].granted():
            self._carry(self._handovers[request_id], tokens)

    def _carry(self, handover: Handover, tokens: int) -> None:
        """Blocks are there: let what is lacking of the cache come."""
        each_bytes = self._splitting[handover.source].kv_bytes_per_token
        if each_bytes is None:
            raise ValueError(f"{handover.source} hands over a KV cache: say its kv_bytes_per_token")
        handover.transfer = Transfer(
            source=handover.source,
            target=handover.target,
            bytes=tokens * each_bytes,
            then=self._landed,
            whom=handover,
        )
        self._links.ask(handover.transfer)

    def _landed(self, handover: Handover) -> None:
        request_id = self._close(handover)
        self._free(handover.source, request_id)
        self._splitting[handover.target].land(request_id)
        self._wake(self.servers[handover.target])

    def _lose(self, server: Engine, flight: Flight) -> None:
        handover = self._handovers.get(flight.job.request.id)
        if handover is None:
            super()._lose(server, flight)
        else:
            self._break(handover, server.id)

    def _dismiss(self, action: Action) -> None:
        handover = self._handovers.get(action.request_id)
        if handover is None:
            super()._dismiss(action)
        else:
            self._give_back(handover)
            self._end(action.request_id, "cancelled")

    def _break(self, handover: Handover, culprit: str) -> None:
        """Let an attempt fail that lost one of its replicas."""
        self._give_back(handover, lost=culprit)
        self._hear(self._broken, (handover.flight, culprit))

    def _broken(self, last: tuple[Flight, str]) -> None:
        flight, culprit = last
        self._tell(Failed(self.now_s, flight.job.request.id, WHY, replica_down=True, replica=culprit))

    def _turn_away(self, handover: Handover, error: ValueError) -> None:
        """Let a request fail that one of its engines refuses."""
        request_id = handover.flight.job.request.id
        self._give_back(handover)
        self._hear(self._rejected, (request_id, str(error)))

    def _give_back(self, handover: Handover, lost: str | None = None) -> None:
        """Leave nothing of an attempt on its replicas, but for the one that is lost, and on their links."""
        request_id = self._close(handover)
        if handover.transfer is not None:
            self._links.drop(handover.transfer)
        for replica in (handover.source, handover.target):
            if replica != lost:
                self._free(replica, request_id)

    def _close(self, handover: Handover) -> str:
        request_id = handover.flight.job.request.id
        handover.over = True
        del self._handovers[request_id]
        return request_id

    def _free(self, replica: str, request_id: str) -> None:
        """Give back the blocks that a request holds on a replica, which may let others go on there."""
        server = self.servers[replica]
        if self._is_down(replica):
            return
        self._abort(server, request_id)
        if not server.busy:
            self._start(server)
            self._retire(server)

    def _wake(self, server: Engine) -> None:
        """Let an engine see what has changed at the end of the step under way."""
        if not server.busy:
            self._start(server)
            self._retire(server)
        elif server.cut(self.now_s):
            self._agenda.at(server.end_s, self._ended, server)

    def _retire(self, server: Engine) -> None:
        parties = ((one.source, one.target) for one in self._handovers.values())
        if not self._away or not any(server.id in party for party in parties):
            super()._retire(server)

    def _is_down(self, replica: str) -> bool:
        return self._phase(self.servers[replica]) in DOWN

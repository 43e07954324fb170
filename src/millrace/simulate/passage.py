"""A running request on its way from replica to replica, and what it asks of the engines at both ends.

Source: the live migration of Llumnix (Sun et al., OSDI 2024), with the limits of its first implementation.
"""

from __future__ import annotations

from msgspec import Struct

from millrace.replica.sequence import Sequence
from millrace.simulate.flight import Flight
from millrace.simulate.links import Transfer
from millrace.simulate.server import Server

STAGES = 3
"""After so many stages of which none was the last one, the request stays."""
LAST_BLOCKS = 16
"""With at most so many blocks left to carry, the source stops decoding."""


class Passage(Struct, eq=False):
    """A request that goes on at `source` while the KV cache of what it has so far goes to `target`.

    `guest` is the sequence there. `sent_tokens` are there, `seen_tokens` were in the cache when the stage
    under way began. The source stopped working on it at `stopped_s`, None if it still does. Of one that is
    `replayed` nothing is carried: it ends at the source, and the target computes it again.
    """

    flight: Flight
    source: str
    target: str
    guest: Sequence | None = None
    stages: int = 0
    sent_tokens: int = 0
    seen_tokens: int = 0
    preemptions: int = 0
    stopped_s: float | None = None
    last_token_s: float | None = None
    transfer: Transfer | None = None
    over: bool = False
    replayed: bool = False

    @property
    def request_id(self) -> str:
        """The request's name."""
        return self.flight.job.request.id

    def running(self, source: Server) -> Sequence | None:
        """Return the sequence if it decodes, as it has all the time; None if it cannot go."""
        sequence = source.replica.batch.known.get(self.request_id)
        if sequence is None or sequence.pace is None:
            return None
        if self.stages and sequence.preemptions != self.preemptions:
            return None
        return sequence

    def begin_stage(self, sequence: Sequence) -> None:
        """Note what is in the cache now: this is what the next stage carries."""
        self.stages += 1
        self.seen_tokens, self.preemptions = sequence.computed, sequence.preemptions

    def ask(self, target: Server, generated: int) -> None:
        """Ask for blocks for a request with so many tokens generated. Raises ValueError if it cannot fit."""
        if self.guest is None:
            job, limits = self.flight.job, target.limits
            blocks = job.engine_blocks(limits.block_tokens) if limits.prefix_caching else []
            guest = Sequence(job.request.id, job.prompt_tokens, job.output_tokens, blocks)
            guest.priority = job.request.priority
            guest.adapter = job.request.adapter
            target.replica.vet(guest)
            self.guest = guest
        self.guest.sampled = generated
        target.replica.batch.host(self.guest)

    def is_short(self, computed: int, source: Server) -> bool:
        """Whether little of so many tokens in the cache is still to carry."""
        return computed - self.sent_tokens <= LAST_BLOCKS * source.limits.block_tokens

    def is_last(self, sequence: Sequence, source: Server, target: Server) -> bool:
        """Whether little is left, and blocks for it are there, so that the source may stop."""
        assert self.guest is not None
        room = len(self.guest.table) * target.limits.block_tokens
        return sequence.length <= room and self.is_short(sequence.computed, source)

    def stop(self, sequence: Sequence, source: Server, now_s: float) -> bool:
        """Let the source stop between two steps; False if it cannot, for lack of a block to go on with."""
        assert self.guest is not None
        if not source.replica.batch.set_aside(sequence):
            return False
        self.stopped_s, self.seen_tokens = now_s, sequence.computed
        self.guest.sampled, self.guest.cached_tokens = sequence.sampled, sequence.cached_tokens
        if source.gaps:
            self.last_token_s = source.gaps.take(sequence)
        return True

    def go_on(self, server: Server) -> None:
        """Let the request go on at one of the two, in the next step that has a seat."""
        sequence = server.replica.batch.known[self.request_id]
        if server.gaps and self.last_token_s is not None:
            server.gaps.await_next(sequence, self.last_token_s)
        server.replica.land(self.request_id)

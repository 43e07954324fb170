"""Replicas that see and hear: media are encoded in the way of the steps, or by replicas that do nothing else.

An engine that takes media encodes those of a prompt in the step that begins to compute it, and everybody in
that step waits, as in vLLM. It need not if its prefix cache holds their blocks, or it still has what it made
of the same media (its `Seen`). Engines of the role `encode` take one request at a time, and hand over what
they made of its media; then the request is queued where it is answered, and holds up nobody there.

Source: non-blocking encoding and unified prefix caching of ElasticMM (Liu et al., arXiv:2507.10069).
"""

from __future__ import annotations

from collections import OrderedDict, deque

from msgspec.structs import replace

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import ENDLESS
from millrace.core.replica import Limits, Report
from millrace.core.request import Media
from millrace.replica.executor import Run
from millrace.replica.progress import End, Progress
from millrace.replica.sequence import Sequence
from millrace.simulate.engine import Engine, ServerSpec
from millrace.simulate.handover import Handover, SplitWorld
from millrace.simulate.job import Job
from millrace.simulate.links import Transfer
from millrace.simulate.server import Server

SEEN_TOKENS = 131_072  # of which an engine keeps what it made: 2 GiB at 16 KiB each


class Seen:
    """What an encoder made of media lately; that used longest ago is forgotten first."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[int, int] = OrderedDict()
        self._held = 0

    def lacking(self, media: tuple[Media, ...], cached_tokens: int = 0) -> int:
        """Return the tokens to be made now, of media behind `cached_tokens`; all are there from now on."""
        lacking = end = 0
        for one in media:
            end += one.tokens
            if end <= cached_tokens:
                continue
            if one.key not in self._tokens:
                lacking += one.tokens
                self._held += one.tokens
                self._tokens[one.key] = one.tokens
            self._tokens.move_to_end(one.key)
        while self._held > SEEN_TOKENS:
            self._held -= self._tokens.popitem(last=False)[1]
        return lacking


class SeeingServer(Server):
    """An engine that encodes the media of its prompts itself, in the way of its steps."""

    def __init__(
        self, spec: ServerSpec, batching: BatchingPolicy, *, leaping: bool = True, longest: int = ENDLESS
    ) -> None:
        super().__init__(spec, batching, leaping=leaping, longest=longest)
        assert spec.encoder is not None
        self._encoder = spec.encoder
        self._usual = self.longest
        self._media: dict[str, tuple[Media, ...]] = {}
        self._seen = Seen()
        self._delays = True

    def add(self, job: Job, *, prompt_only: bool = False) -> None:
        """Queue a job with its media."""
        super().add(job, prompt_only=prompt_only)
        if job.request.media:
            self._media[job.request.id] = job.request.media

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""
        super().abort(request_id)
        self._media.pop(request_id, None)

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once; return what `Server` does."""
        self._media.clear()
        self._seen = Seen()
        return super().drop(now_s)

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run: a single step as long as there are media to be encoded."""
        self.longest = 1 if self._media else self._usual
        return super().start(now_s, slowdown)

    def _loads_s(self) -> float:
        """Seconds that the step just planned waits for adapters and media."""
        seconds, run = super()._loads_s(), self._run
        if not self._media or run is None:
            return seconds
        for chunk in run.prefills if isinstance(run, Run) else run.chunks:
            media = self._media.pop(chunk.sequence.id, ())
            seconds += self._encoder.seconds(self._seen.lacking(media, chunk.start)) if media else 0.0
        return seconds


class EncodeServer:
    """An engine that only encodes: the media of one request at a time, first come first served."""

    def __init__(self, spec: ServerSpec) -> None:
        if spec.encoder is None:
            raise ValueError(f"{spec.id} has the role encode: give it an encoder")
        self.id, self.spec, self.cold_start_s = spec.id, spec.spec, spec.cold_start_s
        self.encoder = spec.encoder
        self.limits = spec.spec.limits or Limits()
        self.kv_bytes_per_token = spec.kv_bytes_per_token
        self.end_s = 0.0
        self._queue: deque[Job] = deque()
        self._job: Job | None = None
        self._wanted = True
        self._kept: set[str] = set()
        self._seen = Seen()

    @property
    def busy(self) -> bool:
        """Whether media are being encoded."""
        return self._job is not None

    def add(self, job: Job, *, prompt_only: bool = True) -> None:
        """Queue a job, of which only the media are wanted here."""
        self._queue.append(job)

    def abort(self, request_id: str) -> None:
        """Forget a job; what is under way goes on to its end, for nobody."""
        self._kept.discard(request_id)
        self._queue = deque(job for job in self._queue if job.request.id != request_id)
        if self._job is not None and self._job.request.id == request_id:
            self._wanted = False

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once; return the ids of all jobs, none of which has a token."""
        under_way = [self._job] if self._job is not None and self._wanted else []
        lost = [*sorted(self._kept), *(job.request.id for job in (*under_way, *self._queue))]
        self._queue.clear()
        self._kept.clear()
        self._job, self._seen = None, Seen()
        return dict.fromkeys(lost, 0)

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin with the next request, which will be done at `end_s`; False if there is none."""
        if not self._queue:
            return False
        self._job, self._wanted = self._queue.popleft(), True
        tokens = self._seen.lacking(self._job.request.media)
        self.end_s = now_s + slowdown * self.encoder.seconds(tokens)
        return True

    def cut(self, now_s: float) -> bool:
        """What is under way is not cut."""
        return False

    def make_way(self, now_s: float) -> bool:
        """Whoever comes waits."""
        return False

    def finish(self) -> Progress:
        """End what is under way: it is kept for who answers, as a computed prompt is."""
        job, self._job = self._job, None
        assert job is not None, "nothing is under way"
        if not self._wanted:
            return Progress()
        self._kept.add(job.request.id)
        done = Sequence(job.request.id, job.request.encode_tokens, 1, keeps=True)
        return Progress((), (End(done, "length"),))

    def granted(self) -> list[tuple[str, int]]:
        """Nobody hands anything over to an encoder."""
        return []

    def report(self, now_s: float) -> Report:
        """Return what the engine would say of its queue."""
        free_tokens = self.limits.kv_blocks * self.limits.block_tokens  # it has nothing for its KV cache
        running, waiting = int(self.busy), len(self._queue)
        return Report(now_s=now_s, running=running, waiting=waiting, kv_free_tokens=free_tokens)


class SeeingWorld(SplitWorld):
    """A world in which the replica that comes first may be one that only encodes."""

    def _expect(self, sent: tuple[Handover, int]) -> None:
        handover, _ = sent
        encoder = self._splitting[handover.source]
        if not isinstance(encoder, EncodeServer) or handover.over:
            super()._expect(sent)
            return
        if self._is_down(handover.target):
            self._break(handover, handover.target)
            return
        handover.transfer = Transfer(
            source=handover.source,
            target=handover.target,
            bytes=handover.flight.job.request.encode_tokens * encoder.encoder.bytes_per_token,
            then=self._shown,
            whom=handover,
        )
        self._links.ask(handover.transfer)

    def _shown(self, handover: Handover) -> None:
        """Queue a request where it is answered, now that what its media became is there."""
        handover.transfer = None
        if self._is_down(handover.target):
            self._break(handover, handover.target)
            return
        rest = handover.flight.rest
        try:
            self._splitting[handover.target].add(replace(rest, request=replace(rest.request, media=())))
        except ValueError as error:
            self._turn_away(handover, error)
            return
        self._free(handover.source, self._close(handover))
        server: Engine = self.servers[handover.target]
        if not server.busy:
            self._start(server)
        elif server.make_way(self.now_s):
            self._agenda.at(server.end_s, self._ended, server)

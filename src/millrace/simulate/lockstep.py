"""A simulated engine of several ranks that share a model's experts, and so begin and end steps together."""

from __future__ import annotations

from msgspec.structs import replace

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import SharedCost, StepShape
from millrace.core.replica import Report
from millrace.replica.progress import End, Progress
from millrace.replica.sequence import Sequence
from millrace.simulate.engine import ServerSpec
from millrace.simulate.job import Job
from millrace.simulate.server import Server


class Lockstep:
    """Each rank has a batch and a KV cache of its own; a step lasts as long as the slowest rank's.

    A new request goes to the rank with the least of 4 * waiting + running, which is how vLLM balances its
    data parallel ranks. Limits are those of one rank.
    """

    def __init__(self, spec: ServerSpec, batching: BatchingPolicy) -> None:
        if not isinstance(spec.cost, SharedCost):
            raise ValueError(f"{spec.id} has {spec.ranks} ranks; its cost must tell what they share")
        self.id = spec.id
        self.spec = spec.spec
        self.cold_start_s = spec.cold_start_s
        self.cost: SharedCost = spec.cost
        self.kv_bytes_per_token = spec.kv_bytes_per_token
        own = replace(spec, cost=_Own(spec.cost))
        self.ranks = [Server(own, batching, longest=1) for _ in range(spec.ranks)]
        self.end_s = 0.0
        self._rank_of: dict[str, Server] = {}

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return any(rank.busy for rank in self.ranks)

    def add(self, job: Job, *, prompt_only: bool = False) -> None:
        """Queue a job, or its prompt only, at one of the ranks. Raises ValueError if it can never fit."""
        rank = min(self.ranks, key=_crowd)
        rank.add(job, prompt_only=prompt_only)
        self._rank_of[job.request.id] = rank

    def expect(self, job: Job, cached_tokens: int) -> None:
        """Let a job wait at one of the ranks for the KV cache of its prompt. Raises like `add`."""
        rank = min(self.ranks, key=_crowd)
        rank.expect(job, cached_tokens)
        self._rank_of[job.request.id] = rank

    def granted(self) -> list[tuple[str, int]]:
        """Return the expected jobs that got their blocks since the last time, and the tokens to come."""
        return [grant for rank in self.ranks for grant in rank.granted()]

    def land(self, request_id: str) -> None:
        """Note that the KV cache of an expected job is here, at its rank."""
        self._rank_of[request_id].land(request_id)

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""
        rank = self._rank_of.pop(request_id, None)
        if rank:
            rank.abort(request_id)

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once, the step under way and the KV caches too.

        Return the ids of all jobs, with the tokens that each has of its answer.
        """
        dropped = {rank: rank.drop(now_s) for rank in self.ranks}
        lost = {request_id: dropped[rank].get(request_id, 0) for request_id, rank in self._rank_of.items()}
        self._rank_of = {}
        return lost

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next step, which will end at `end_s`; False if there is nothing to do."""
        working = [rank for rank in self.ranks if rank.start(now_s, slowdown)]
        if not working:
            return False
        together_s = slowdown * self.cost.experts_s(sum(rank.tokens for rank in working))
        self.end_s = max(rank.end_s for rank in working) + together_s
        return True

    def cut(self, now_s: float) -> bool:
        """There is never more than one step to cut: return False."""
        return False

    def make_way(self, now_s: float) -> bool:
        """There is never more than one step to end before: return False."""
        return False

    def finish(self) -> Progress:
        """End the step under way; completed jobs are forgotten, but for prompts that are kept for others."""
        first: list[Sequence] = []
        ended: list[End] = []
        for rank in self.ranks:
            if rank.busy:
                rank.end_s = self.end_s
                progress = rank.finish()
                first += progress.first
                ended += progress.ended
        for end in ended:
            if not end.sequence.keeps:
                del self._rank_of[end.sequence.id]
        return Progress(first, ended)

    def report(self, now_s: float) -> Report:
        """Return what the engine's `/metrics` would say now, summed over the ranks."""
        reports = [rank.report(now_s) for rank in self.ranks]
        return Report(
            now_s=now_s,
            running=sum(report.running or 0 for report in reports),
            waiting=sum(report.waiting or 0 for report in reports),
            kv_free_tokens=sum(report.kv_free_tokens or 0 for report in reports),
        )


class _Own:
    """A rank's own part of the price."""

    def __init__(self, cost: SharedCost) -> None:
        self.cost = cost
        self.needs_lengths: bool = getattr(cost, "needs_lengths", False)

    def step_s(self, shape: StepShape) -> float:
        return self.cost.own_s(shape)

    def step_j(self, shape: StepShape) -> float:
        return self.cost.step_j(shape)


def _crowd(rank: Server) -> int:
    waiting, running = rank.load
    return 4 * waiting + running

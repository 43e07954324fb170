"""A simulated engine: the replica kernel that serves, around an executor that only knows prices."""

from __future__ import annotations

from msgspec import Struct

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import CostModel
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.replica.executor import Step, StepResult
from millrace.replica.progress import Progress
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from millrace.simulate.job import Job


class ServerSpec(Struct, frozen=True, kw_only=True):
    """One engine of a simulated fleet: its name, what the controller knows of it, and what its steps cost."""

    id: str
    spec: ReplicaSpec
    cost: CostModel


class Server:
    """Runs jobs step by step; at most one step is under way, and it ends when the world says so."""

    def __init__(self, spec: ServerSpec, batching: BatchingPolicy) -> None:
        self.id = spec.id
        self.spec = spec.spec
        self.cost = spec.cost
        self.limits = spec.spec.limits or Limits()
        self.replica = Replica(self.limits, batching)
        self.sequences: dict[str, Sequence] = {}
        self._step: Step | None = None

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self._step is not None

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError for one that can never fit."""
        blocks = job.engine_blocks(self.limits.block_tokens) if self.limits.prefix_caching else []
        sequence = Sequence(job.request.id, job.prompt_tokens, max(1, job.output_tokens), blocks)
        self.replica.add(sequence)
        self.sequences[sequence.id] = sequence

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""
        if self.sequences.pop(request_id, None):
            self.replica.abort(request_id)

    def start(self) -> float | None:
        """Begin the next step and return its price in seconds; None if there is nothing to do."""
        assert self._step is None
        self._step = self.replica.plan()
        return None if self._step is None else self.cost.step_s(self._step.shape)

    def finish(self, seconds: float) -> Progress:
        """End the step under way; completed jobs are forgotten."""
        assert self._step is not None
        step, self._step = self._step, None
        progress = self.replica.commit(step, StepResult(seconds))
        for end in progress.ended:
            del self.sequences[end.sequence.id]
        return progress

    def report(self, now_s: float) -> Report:
        """Return what the engine's `/metrics` would say now."""
        return Report(
            now_s=now_s,
            running=len(self.replica.running),
            waiting=len(self.replica.waiting),
            kv_free_tokens=self.replica.kv_free_tokens,
        )

"""What an engine of a simulated fleet is, and what the world asks of whatever plays one."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from millrace.core.cost import CostModel
from millrace.core.cost.encode import Encoder
from millrace.core.replica import ReplicaSpec, Report
from millrace.replica.progress import Progress
from millrace.simulate.job import Job


class ServerSpec(Struct, frozen=True, kw_only=True):
    """One engine of a simulated fleet: its name, what the controller knows of it, and what its steps cost.

    An engine that schedules `ahead` decides on a step when the one before it begins (vLLM's asynchronous
    scheduling), so whoever arrives during a step waits for the end of the next one too. An engine of
    several `ranks` shares a model's experts among them, and its cost is a `SharedCost`. Once started, it
    is ready after `cold_start_s`. `idle_w` is what all its devices draw with nothing to do,
    `kv_bytes_per_token` what a token takes in its KV cache; None is unknown. One with an `encoder` takes
    media, and one of the role `encode` does nothing else.
    """

    id: str
    spec: ReplicaSpec
    cost: CostModel
    ahead: bool = False
    ranks: int = 1
    cold_start_s: float = 0.0
    idle_w: float | None = None
    kv_bytes_per_token: float | None = None
    encoder: Encoder | None = None


class Engine(Protocol):
    """What runs jobs in virtual time: at most one run is under way, and it ends when the world says so."""

    id: str
    spec: ReplicaSpec
    cold_start_s: float
    end_s: float

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError for one that can never fit."""

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once, the run under way and the KV cache too.

        Return the ids of all jobs, with the tokens that each has of its answer.
        """

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run, which will end at `end_s`; False if there is nothing to do."""

    def cut(self, now_s: float) -> bool:
        """Let the run end with the step that is under way now; False if it would have anyway."""

    def make_way(self, now_s: float) -> bool:
        """Let the run end when who has just been added may get its turn; False if it would have anyway."""

    def finish(self) -> Progress:
        """End the run under way; completed jobs are forgotten."""

    def report(self, now_s: float) -> Report:
        """Return what the engine's `/metrics` would say now."""

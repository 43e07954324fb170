"""A simulated request on its way, and the outcome it turns into."""

from __future__ import annotations

from msgspec import Struct

from millrace.core.outcome import Outcome, Status
from millrace.replica.sequence import Sequence
from millrace.simulate.job import Job


class Flight(Struct, eq=False):
    """A job between its arrival and its end."""

    job: Job
    replica: str | None = None
    first_token_s: float | None = None
    prefilled_on: str | None = None
    moves: int = 0
    paused_s: float = 0.0

    def outcome(self, status: Status, now_s: float, *, done: Sequence | None, error: str | None) -> Outcome:
        """Return what became of the job; `done` is its sequence if the engine completed it."""
        if done is None:
            output_tokens = cached_tokens = 0
        else:
            output_tokens, cached_tokens = done.generated, done.cached_tokens
        return Outcome(
            id=self.job.request.id,
            scheduled_s=self.job.t_s,
            status=status,
            prompt_tokens=self.job.prompt_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            replica=self.replica,
            prefilled_on=self.prefilled_on,
            moves=self.moves,
            paused_s=self.paused_s,
            first_token_s=self.first_token_s,
            finished_s=now_s,
            error=error,
        )

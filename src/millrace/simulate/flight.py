"""A simulated request on its way, and the outcome it turns into."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.outcome import Outcome, Status
from millrace.replica.sequence import Sequence
from millrace.simulate.job import Job


class Flight(Struct, eq=False):
    """A job between its arrival and its end; replicas that died had given `had` tokens of its answer."""

    job: Job
    replica: str | None = None
    first_token_s: float | None = None
    prefilled_on: str | None = None
    moves: int = 0
    paused_s: float = 0.0
    had: int = 0

    @property
    def rest(self) -> Job:
        """What is left to do: the job, or one that has the tokens it had in its prompt."""
        job, had = self.job, self.had
        if not had:
            return job
        return replace(job, prompt_tokens=job.prompt_tokens + had, output_tokens=job.output_tokens - had)

    def after(self, replica: str, tokens: int) -> Flight:
        """Note that a replica died; if it is the one that answers, it had given so many tokens more."""
        self.had += tokens if replica == self.replica else 0
        return self

    def counts(self, done: Sequence) -> tuple[int, int, int]:
        """Return the tokens of the prompt, of the whole answer, and of the prompt's that were cached."""
        prompt_tokens = done.prompt_tokens - self.had
        return prompt_tokens, done.generated + self.had, min(done.cached_tokens, prompt_tokens)

    def outcome(self, status: Status, now_s: float, *, done: Sequence | None, error: str | None) -> Outcome:
        """Return what became of the job; `done` is its sequence if the engine completed it.

        One whose answer could not go on anywhere has failed, since its client saw it begin.
        """
        output_tokens = cached_tokens = 0
        if done is not None:
            _, output_tokens, cached_tokens = self.counts(done)
        elif self.had and status == "refused":
            status = "failed"
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

"""A guard against overflow in front of a simulated fleet: the one that a gateway asks."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from millrace.core.outcome import Outcome
from millrace.core.overflow import OverflowGuard, Whose
from millrace.core.prompt_class import prompt_class
from millrace.simulate.job import Job

Known = tuple[Whose, int | None, int | None]


class Guarded:
    """Caps requests as they come, and learns from their ends.

    A trace tells how long answers became, so a request is taken to have asked for no limit, unless that is
    beyond its answer. What a reminder would do to an answer is not known, and not simulated.
    """

    def __init__(self, guard: OverflowGuard) -> None:
        self.guard = guard
        self._known: dict[str, Known] = {}

    @property
    def ways(self) -> tuple[Callable[[Job], Job], Callable[[Outcome], None]]:
        """What to do with requests that come, and with those that ended."""
        return self.admit, self.ended

    def admit(self, job: Job) -> Job:
        """Return the job with the limit that the guard leaves it."""
        request = job.request
        whose = Whose(request.model, request.tenant, prompt_class(request.lexical))
        asked = request.max_tokens if request.max_tokens > job.output_tokens else None
        cap = self.guard.cap_tokens(whose, asked)
        self._known[request.id] = (whose, asked, cap)
        if cap is None:
            return job
        limited = replace(request, max_tokens=min(request.max_tokens, cap))
        return replace(job, request=limited, output_tokens=min(job.output_tokens, cap))

    def ended(self, outcome: Outcome) -> None:
        """Learn from an answer that was completed."""
        whose, asked, cap = self._known.pop(outcome.id)
        if outcome.status == "completed":
            self.guard.see(whose, outcome.output_tokens, asked=asked, cap=cap)

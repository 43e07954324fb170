"""Closed-loop sessions: a turn comes when the one before it has ended and was thought over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.outcome import Outcome
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.simulate.job import Job, job_of


class Turn(Struct, frozen=True):
    """A request of a conversation: due at its job's `t_s`, or `think_s` after the turn `after` has ended."""

    job: Job
    after: str | None = None
    think_s: float = 0.0


class Sessions:
    """A workload of conversations: iterate over it for the first turns, and ask what comes `after` each end.

    Conversations are taken one by one, in the order of their first turns, so there may be more of them than
    fit in memory. One whose turn does not complete is over. Iterating again starts again.
    """

    def __init__(self, conversations: Iterable[Sequence[Turn]]) -> None:
        self.conversations = conversations
        self._waiting: dict[str, list[Turn]] = {}

    def __iter__(self) -> Iterator[Job]:
        """Yield the first turn of each conversation; the others wait."""
        self._waiting = {}
        for opening, *others in self.conversations:
            for turn in others:
                assert turn.after is not None, "only the first turn of a conversation waits for nothing"
                self._waiting.setdefault(turn.after, []).append(turn)
            yield opening.job

    def after(self, outcome: Outcome) -> list[Job]:
        """Return the turns that this end brings on, due after they were thought over."""
        turns = self._waiting.pop(outcome.id, ())
        if outcome.status != "completed" or outcome.finished_s is None:
            self._forget(turns)
            return []
        return [replace(turn.job, t_s=outcome.finished_s + turn.think_s) for turn in turns]

    def _forget(self, turns: Iterable[Turn]) -> None:
        rest = list(turns)
        while rest:
            rest += self._waiting.pop(rest.pop().job.request.id, ())


def conversations_of(
    records: Iterable[TraceRecord],
    model: str,
    slo: Slo,
    *,
    models: Mapping[str, str] | None = None,
    think_s: float | None = None,
) -> list[list[Turn]]:
    """Group trace records into conversations: a turn follows its parent, or the last one of its session.

    Failed records are left out. The time to think is `think_s`, or else what the trace tells: from the end
    of the turn before (from its arrival, where the trace does not say how long the answer took), at least 0.
    Models and objectives are those that `jobs_of` would give.
    """
    renamed = models or {}
    found: list[list[Turn]] = []
    home: dict[str, list[Turn]] = {}
    seen: dict[str, TraceRecord] = {}
    last: dict[str, TraceRecord] = {}
    for record in sorted((r for r in records if not r.failed), key=lambda r: r.t_s):
        asked = renamed.get(record.model, record.model) if record.model else model
        job = job_of(record, asked, slo)
        before = seen.get(record.parent or "") or last.get(record.session or "")
        if before is None:
            home[record.id] = [Turn(job)]
            found.append(home[record.id])
        else:
            home[record.id] = home[before.id]
            gap_s = _gap_s(before, record) if think_s is None else think_s
            home[record.id].append(Turn(job, before.id, gap_s))
        seen[record.id] = record
        if record.session:
            last[record.session] = record
    return found


def _gap_s(before: TraceRecord, record: TraceRecord) -> float:
    return max(0.0, record.t_s - before.t_s - (before.elapsed_s or 0.0))

"""A closed loop: the conversations of a trace, whose turns wait for the answers before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.core.trace.reshape import scale_rate
from millrace.simulate import Job, Sessions, conversations_of
from millrace.simulate.repeat import redraw_arrivals
from millrace.simulate.sessions import Turn


def talks_of(
    records: Iterable[TraceRecord], slo: Slo, *, think_s: float | None, rate: float = 1.0, seed: int = 0
) -> Sessions:
    """Return the conversations of a trace whose requests all name their models.

    They begin `rate` times as fast, at the times of this seed; how long their turns are thought over stays.
    Raises ValueError for a trace in which nothing follows anything.
    """
    known = {record.id: record for record in records}
    talks = conversations_of(known.values(), "", slo, think_s=think_s)
    if all(len(talk) == 1 for talk in talks):
        raise ValueError(
            "--closed-loop: no request of this trace follows another, as none names its session or parent; "
            "find conversations by their prompts with millrace trace convert --find-sessions, make some with "
            "millrace trace synthesise, or leave out --closed-loop"
        )
    openings = [known[talk[0].job.request.id] for talk in talks]
    begun = scale_rate(redraw_arrivals(openings, seed), rate)
    return Sessions([_moved(talk, opening.t_s) for talk, opening in zip(talks, begun, strict=True)])


def altered(talks: Sessions, alter: Callable[[Iterable[Job]], Iterable[Job]]) -> Sessions:
    """Return the same conversations, their requests altered."""
    turns = [list(talk) for talk in talks.conversations]
    jobs = iter(alter(turn.job for talk in turns for turn in talk))
    return Sessions([[replace(turn, job=next(jobs)) for turn in talk] for talk in turns])


def _moved(talk: list[Turn], t_s: float) -> list[Turn]:
    first, *others = talk
    return [replace(first, job=replace(first.job, t_s=t_s)), *others]

"""Things happen in the order of their times, those of one moment as they were planned."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from millrace.simulate.agenda import Agenda


@dataclass(frozen=True)
class Part:
    """Something that happens after a delay, and what is planned when it does."""

    delay_s: float = 0.0
    then: tuple[Part, ...] = ()


delays_s = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])
parts: st.SearchStrategy[Part] = st.deferred(
    lambda: st.builds(Part, delays_s, st.lists(parts, max_size=3).map(tuple))
)
plans = st.lists(parts, max_size=4).map(tuple)


def _happened(plan: tuple[Part, ...]) -> list[tuple[float, int]]:
    """Return when each part of a plan happened, and which it was."""
    agenda, numbers = Agenda(), count()
    seen: list[tuple[float, int]] = []

    def all_of(then: tuple[Part, ...]) -> None:
        for part in then:
            agenda.at(agenda.now_s + part.delay_s, happen, (next(numbers), part.then))

    def happen(what: tuple[int, tuple[Part, ...]]) -> None:
        number, then = what
        seen.append((agenda.now_s, number))
        all_of(then)

    all_of(plan)
    assert bool(agenda) is bool(plan)
    agenda.play()
    assert not agenda
    return seen


def _in_one_heap(plan: tuple[Part, ...]) -> list[tuple[float, int]]:
    """Do the same with nothing but a heap."""
    heap: list[tuple[float, int, tuple[Part, ...]]] = []
    numbers = count()
    seen: list[tuple[float, int]] = []
    now_s, then = 0.0, plan
    while True:
        for part in then:
            heappush(heap, (now_s + part.delay_s, next(numbers), part.then))
        if not heap:
            return seen
        now_s, number, then = heappop(heap)
        seen.append((now_s, number))


@given(plan=plans)
def test_an_agenda_keeps_the_order_of_a_heap(plan: tuple[Part, ...]) -> None:
    assert _happened(plan) == _in_one_heap(plan)


def test_what_is_due_at_once_comes_after_what_was_planned_for_the_same_moment() -> None:
    agenda = Agenda()
    seen: list[str] = []
    agenda.at(1.0, lambda _: agenda.at(1.0, seen.append, "at once"), None)
    agenda.at(1.0, seen.append, "planned")
    agenda.play()
    assert seen == ["planned", "at once"]


def test_what_is_planned_for_the_past_happens_now() -> None:
    agenda = Agenda()
    seen: list[float] = []
    agenda.at(2.0, lambda _: agenda.at(1.0, lambda _: seen.append(agenda.now_s), None), None)
    agenda.play()
    assert seen == [2.0]

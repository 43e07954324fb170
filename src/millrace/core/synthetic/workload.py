"""A workload in numbers, fitted to a trace, and traces made from one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count, islice

from msgspec import Struct

from millrace.core.chance import Chance
from millrace.core.draw import draw
from millrace.core.synthetic.arrivals import Burst, Period, fit_periods, starts
from millrace.core.synthetic.conversations import Turns, answered, by_session, fit_turns
from millrace.core.synthetic.lengths import Lengths, fit_lengths
from millrace.core.trace import TraceRecord


class Workload(Struct, frozen=True, kw_only=True):
    """When conversations begin, how long first prompts and answers are, and how turns follow, if any do."""

    periods: tuple[Period, ...]
    lengths: Lengths
    turns: Turns | None = None
    burst: Burst = "gamma"


def fit_workload(
    records: Iterable[TraceRecord],
    *,
    period_s: float = 60.0,
    burst: Burst = "gamma",
    strata: int = 16,
    end_s: float | None = None,
) -> Workload:
    """Fit to a trace, whose times may be in any order; `end_s` is where it ends, by default its last time.

    Raises ValueError for negative times and for a trace without a request that got an answer.
    """
    if not period_s > 0:
        raise ValueError(f"period_s is {period_s}; it must be above 0")
    ordered = sorted(records, key=lambda record: record.t_s)
    if not ordered:
        raise ValueError("records is empty; pass a trace with at least one request")
    if ordered[0].t_s < 0:
        raise ValueError(f"t_s of {ordered[0].id!r} is {ordered[0].t_s}; count times from the trace's start")
    sessions = by_session(ordered)
    first = [session[0] for session in sessions]
    periods = fit_periods([r.t_s for r in first], [r.failed for r in first], period_s, end_s)
    lengths = fit_lengths(answered(first) or answered(ordered), strata)
    turns = fit_turns(sessions, strata)
    return Workload(periods=periods, lengths=lengths, turns=turns, burst=burst)


def generate(
    workload: Workload,
    *,
    seed: int = 0,
    requests: int | None = None,
    block_tokens: int | None = None,
    model: str | None = None,
) -> Iterator[TraceRecord]:
    """Yield records in the order of their times, the same ones for the same seed.

    Without `requests`, the periods are gone through once; with it, again and again until there are as many.
    With `block_tokens`, prompts have block ids, which the turns of a conversation share as far as both go.
    """
    made = _in_order(_Maker(workload, seed, block_tokens, model), again=requests is not None)
    return made if requests is None else islice(made, requests)


class _Maker:
    """Makes one conversation after another."""

    def __init__(self, workload: Workload, seed: int, block_tokens: int | None, model: str | None) -> None:
        self.workload = workload
        self.seed = seed
        self._model = model
        self._block_tokens = block_tokens
        self._chance = Chance("contents", seed)

    def conversation(self, index: int, start_s: float, period: Period) -> Iterator[TraceRecord]:
        """Yield its turns. Only where conversations were fitted do records name theirs."""
        chance, turns = self._chance, self.workload.turns
        input_tokens, output_tokens = self.workload.lengths.both(chance)
        before = None
        for turn in range(turns.count(chance) if turns else 1):
            if turns and turn:
                start_s += chance.between(turns.gap_s)
                input_tokens = max(1, input_tokens + round(chance.between(turns.growth_tokens)))
                output_tokens = turns.lengths.answer_to(input_tokens, chance)
            failed = chance.uniform() < period.failed
            record = TraceRecord(
                id=f"{index}.{turn}" if turns else str(index),
                t_s=start_s,
                input_tokens=input_tokens,
                output_tokens=0 if failed else output_tokens,
                session=str(index) if turns else None,
                turn=turn if turns else None,
                parent=before,
                model=self._model,
                block_tokens=self._block_tokens or 16,
                blocks=self._blocks(index, input_tokens),
                failed=failed,
            )
            yield record
            before = record.id

    def _blocks(self, index: int, input_tokens: int) -> tuple[int, ...]:
        if self._block_tokens is None:
            return ()
        first = draw("blocks", self.seed, index) >> 16
        return tuple(range(first, first + input_tokens // self._block_tokens))


def _in_order(maker: _Maker, *, again: bool) -> Iterator[TraceRecord]:
    """Conversations overlap: later turns wait here until it is their time."""
    workload = maker.workload
    waiting: list[tuple[float, int, TraceRecord]] = []
    order = count()
    beginnings = starts(workload.periods, workload.burst, Chance("arrivals", maker.seed), again=again)
    for index, (start_s, period) in enumerate(beginnings):
        while waiting and waiting[0][0] <= start_s:
            yield heappop(waiting)[2]
        for record in maker.conversation(index, start_s, period):
            heappush(waiting, (record.t_s, next(order), record))
    while waiting:
        yield heappop(waiting)[2]

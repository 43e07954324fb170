"""Arrivals drawn anew keep the requests; work spread over processes comes back in order."""

from __future__ import annotations

import os

import pytest

from millrace.core.trace import TraceRecord
from millrace.simulate.repeat import redraw_arrivals, spread

TIMES_S = [5.0 + n * (n % 7) for n in range(300)]
RECORDS = [
    TraceRecord(id=str(n), t_s=t_s, input_tokens=n, output_tokens=1) for n, t_s in enumerate(sorted(TIMES_S))
]


def test_seed_0_is_the_trace_itself() -> None:
    assert redraw_arrivals(RECORDS, 0) == RECORDS


def test_another_seed_moves_the_same_requests() -> None:
    drawn = redraw_arrivals(RECORDS, 1)
    assert [r.id for r in drawn] == [r.id for r in RECORDS]
    assert [r.t_s for r in drawn] == sorted(r.t_s for r in drawn)
    assert drawn[0].t_s == RECORDS[0].t_s
    assert drawn != RECORDS
    assert drawn == redraw_arrivals(RECORDS, 1) != redraw_arrivals(RECORDS, 2)


def test_a_single_request_stays_where_it_is() -> None:
    assert redraw_arrivals(RECORDS[:1], 3) == RECORDS[:1]


def test_a_seed_is_not_negative() -> None:
    with pytest.raises(ValueError, match="seed"):
        redraw_arrivals(RECORDS, -1)


def test_several_processes_give_results_in_order() -> None:
    assert list(spread(abs, [-3, -1, -2], processes=2)) == [3, 1, 2]


def test_one_process_is_this_one() -> None:
    assert list(spread(_process, [1, 2], processes=1)) == [os.getpid()] * 2


def _process(_: int) -> int:
    return os.getpid()

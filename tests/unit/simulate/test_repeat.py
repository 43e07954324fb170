"""Arrivals drawn anew keep the requests; work spread over processes comes back in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from millrace.core.trace import TraceRecord
from millrace.simulate.repeat import redraw_arrivals, spread
from tests.unit.launch.children import all_end

TIMES_S = [5.0 + n * (n % 7) for n in range(300)]
RECORDS = [
    TraceRecord(id=str(n), t_s=t_s, input_tokens=n, output_tokens=1) for n, t_s in enumerate(sorted(TIMES_S))
]

BUSY = """
import time
from millrace.simulate.repeat import spread
list(spread(time.sleep, [600] * 8, processes=2))
"""


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_it_works_for(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stderr=subprocess.PIPE, text=True) as parent:
        listed, until_s = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
        while len(children := [int(pid) for pid in listed.read_text().split()]) < 3:  # one keeps the books
            assert time.monotonic() < until_s, "the processes never started"
        parent.send_signal(number)
        _, said = parent.communicate(timeout=30)
    assert all_end(children, within_s=20)
    assert "Process Spawn" not in said, "the processes are not interrupted by themselves"


def test_a_failure_ends_what_is_under_way() -> None:
    times: list[Any] = ["no time", 600]
    with pytest.raises(TypeError):
        list(spread(time.sleep, times, processes=2))


def _process(_: int) -> int:
    return os.getpid()

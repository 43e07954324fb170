"""What was served can be read as a trace again."""

from __future__ import annotations

import pytest

from millrace.control import Controller
from millrace.control.log import entry, header
from millrace.core.event import Arrived, Cancelled, Event, Finished
from millrace.core.request import Slo
from millrace.core.trace import TraceError, TraceRecord, read_trace
from millrace.policies import load
from millrace.testing import fakes

WORDING = (3, *(0,) * 17, 1)


def log(*events: Event) -> list[str]:
    """Return the lines of a log of these events, which were answered by nothing."""
    first = header(Controller(load("routing", "least_work"), load("queueing", "fcfs")))
    return [line.decode() for line in (first, *(entry(event, []) for event in events))]


def test_answered_requests_are_records_in_the_order_of_arrival() -> None:
    told = fakes.request("a", tenant="t", session="s", blocks=(7,), lexical=WORDING, slo=Slo(ttft_s=1.0))
    events: list[Event] = [
        Arrived(10.0, told),
        Arrived(11.5, fakes.request("b")),
        Finished(12.0, "b", output_tokens=0),
        Finished(13.0, "a", output_tokens=9),
        Finished(14.0, "a", output_tokens=9),
    ]
    first, second = read_trace(log(*events))
    assert first == TraceRecord(
        id="a",
        t_s=0.0,
        input_tokens=100,
        output_tokens=9,
        session="s",
        model="m",
        tenant="t",
        max_tokens=16,
        blocks=(7,),
        slo=Slo(ttft_s=1.0),
        elapsed_s=3.0,
        lexical=WORDING,
    )
    assert (second.id, second.t_s, second.failed) == ("b", 1.5, True)


def test_who_has_no_end_or_no_count_is_left_out() -> None:
    events: list[Event] = [
        *(Arrived(float(n), fakes.request(name)) for n, name in enumerate("abc")),
        Cancelled(4.0, "a"),
        Finished(5.0, "b"),
        Finished(5.0, "unknown", output_tokens=3),
    ]
    assert list(read_trace(log(*events))) == []


def test_a_line_that_is_no_entry_is_an_error_that_names_it() -> None:
    with pytest.raises(TraceError, match="line 2"):
        list(read_trace([*log(), '{"event": 5}\n']))

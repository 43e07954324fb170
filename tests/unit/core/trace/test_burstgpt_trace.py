from __future__ import annotations

import pytest

from millrace.core.trace import TraceError, TraceRecord
from millrace.core.trace.burstgpt import COLUMNS, read, write

LATER = ",".join(COLUMNS)
EARLIER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def test_the_first_releases_knew_no_sessions() -> None:
    (found,) = read([EARLIER, "45,ChatGPT,1087,230,1317,Conversation log"])
    assert found == TraceRecord(
        id="burstgpt-0",
        t_s=45.0,
        input_tokens=1087,
        output_tokens=230,
        model="ChatGPT",
        kind="Conversation log",
    )


def test_later_releases_know_sessions_and_how_long_answers_took() -> None:
    chat, api = read([LATER, "5.5,17,9.25,GPT-4,417,276,693,Conversation log", "6.0,,,GPT-4,1,2,3,API log"])
    assert (chat.session, chat.elapsed_s, chat.t_s) == ("17", 9.25, 5.5)
    assert (api.session, api.elapsed_s, api.kind) == (None, None, "API log")


def test_failures_are_kept_and_marked() -> None:
    (found,) = read([EARLIER, "1106,ChatGPT,0,0,0,Conversation log"])
    assert found.failed
    assert (found.input_tokens, found.output_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ("soon,ChatGPT,1,2,3,API log", "Timestamp", "cannot read 'soon'; write a number"),
        ("inf,ChatGPT,1,2,3,API log", "Timestamp", "cannot read 'inf'"),
        ("1,ChatGPT,,2,3,API log", "Request tokens", "is empty; write a whole number"),
        ("1,ChatGPT,1", "Response tokens", "the row has 3 cells"),
    ],
)
def test_bad_cells_are_named(line: str, field: str, problem: str) -> None:
    with pytest.raises(TraceError, match=f"line 2, {field}: {problem}"):
        list(read([EARLIER, line]))


def test_a_trace_can_be_written_with_all_columns() -> None:
    original = [LATER, "5.5,17,9.25,GPT-4,417,276,693,Conversation log", '6.0,,,"a,b",1,0,1,']
    assert list(write(read(original))) == original


def test_a_failed_request_is_written_without_an_answer() -> None:
    record = TraceRecord(id="x", t_s=1.0, input_tokens=3, output_tokens=4, failed=True)
    assert list(write([record]))[1] == "1.0,,,,3,0,3,"

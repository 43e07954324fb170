from __future__ import annotations

import pytest

from millrace.core.trace import Format, TraceError, TraceRecord, detect, read_trace, write_trace

RECORDS = [
    TraceRecord(id="a", t_s=0.0, input_tokens=5, output_tokens=2, model="m"),
    TraceRecord(id="b", t_s=1.5, input_tokens=6, output_tokens=0, model="m", failed=True),
]
FORMATS: list[Format] = ["millrace", "azure", "mooncake", "burstgpt"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_in_a_format_is_read_back_without_naming_it(format: Format) -> None:
    lines = list(write_trace(RECORDS, format))
    assert detect(lines[0]) == format
    found = list(read_trace(line + "\r\n" for line in lines))
    assert [(r.t_s, r.input_tokens, r.output_tokens, r.failed) for r in found] == [
        (0.0, 5, 2, False),
        (1.5, 6, 0, True),
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_failed_requests_can_be_left_out(format: Format) -> None:
    assert len(list(read_trace(write_trace(RECORDS, format), drop_failed=True))) == 1


def test_the_options_of_a_reader_reach_it() -> None:
    line = '{"timestamp":0,"input_length":20,"output_length":1,"hash_ids":[1,2]}'
    found = list(read_trace([line, line], spread=False, block_tokens=16))
    assert [(r.t_s, r.blocks) for r in found] == [(0.0, (1,))] * 2


@pytest.mark.parametrize("line", ["prompt,answer", '{"prompt":"hi"}', "PK\x03\x04"])
def test_an_unknown_first_line_is_refused_with_the_formats_there_are(line: str) -> None:
    with pytest.raises(
        TraceError, match="begins no known trace; convert it to one of millrace, azure, mooncake, burstgpt"
    ):
        read_trace([line])


def test_an_empty_trace_is_no_trace() -> None:
    with pytest.raises(TraceError, match="line 1, header: the trace is empty"):
        read_trace([])

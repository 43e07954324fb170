from __future__ import annotations

from collections.abc import Iterable

import pytest

from millrace.core.trace import TraceError, TraceRecord
from millrace.core.trace.azure import read, write

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def rows(*lines: str, header: str = HEADER) -> list[TraceRecord]:
    return list(read([header, *lines]))


def test_seven_digit_fractions_are_exact() -> None:
    found = rows("2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
    assert [r.t_s for r in found] == [0.0, 4.314579]
    assert found[1] == TraceRecord(id="azure-1", t_s=4.314579, input_tokens=396, output_tokens=109)


@pytest.mark.parametrize(
    "later",
    [
        "2024-05-10 00:00:00.009930+00:00",
        "2024-05-10T00:00:00.009930Z",
        "2024-05-10 00:00:00.00993",
        "2024-05-10 00:00:00.009930000",
        "2024-05-10 02:00:00.009930+02:00",
        "2024-05-09 18:30:00.00993-0530",
    ],
)
def test_the_stamps_of_other_years_are_read_as_well(later: str) -> None:
    assert [r.t_s for r in rows("2024-05-10 00:00:00+00:00,1,1", f"{later},1,1")] == [0.0, 0.00993]


def test_columns_are_found_by_name_and_images_are_kept() -> None:
    header = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens"
    (one, none) = rows("2024-10-15 00:00:00,3,70,8", "2024-10-15 00:00:00,,70.0,8", header=header)
    assert (one.images, one.input_tokens, one.output_tokens) == (3, 70, 8)
    assert (none.images, none.input_tokens) == (0, 70)


def test_windows_line_ends_blank_lines_and_a_byte_order_mark_are_no_obstacle() -> None:
    lines = [
        f"\ufeff{HEADER}\r\n",
        "2023-11-16 18:15:46.6805900,374,44\r\n",
        "\r\n",
        "2023-11-16 18:15:47,1,2",
    ]
    assert len(list(read(lines))) == 2


def test_a_request_without_an_answer_has_failed() -> None:
    assert rows("2023-11-16 18:15:46,374,0")[0].failed


def test_time_may_run_backwards_in_a_file() -> None:
    assert [r.t_s for r in rows("2023-11-16 18:15:46,1,1", "2023-11-16 18:15:45.5,1,1")] == [0.0, -0.5]


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ("yesterday,374,44", "TIMESTAMP", "cannot read 'yesterday'; write it like 2023-11-16"),
        ("2023-13-16 18:15:46,374,44", "TIMESTAMP", "cannot read '2023-13-16 18:15:46'"),
        (",374,44", "TIMESTAMP", "is empty"),
        ("2023-11-16 18:15:46,many,44", "ContextTokens", "cannot read 'many'; write a whole number"),
        ("2023-11-16 18:15:46,374,-1", "GeneratedTokens", "cannot read '-1'"),
        ("2023-11-16 18:15:46,374,1.5", "GeneratedTokens", "cannot read '1.5'"),
        ("2023-11-16 18:15:46,374,nan", "GeneratedTokens", "cannot read 'nan'"),
        ("2023-11-16 18:15:46,374", "GeneratedTokens", "the row has 2 cells"),
        ("2023-11-16 18:15:46,1,374,44", "row", "the row has 4 cells; write as many as the header has, 3"),
        ('2023-11-16 18:15:46,"37\r4",44\rx', "row", "new-line character seen"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_field(line: str, field: str, problem: str) -> None:
    with pytest.raises(TraceError, match=f"line 3, {field}: .*{problem}") as caught:
        rows("2023-11-16 18:15:46,1,1", line)
    assert (caught.value.line, caught.value.field) == (3, field)


def test_a_header_without_a_needed_column_is_refused() -> None:
    with pytest.raises(TraceError, match="line 1, GeneratedTokens: the header lacks this column"):
        rows(header="TIMESTAMP,ContextTokens")


def lines_of(records: Iterable[TraceRecord], start: str = "1970-01-01 00:00:00") -> list[str]:
    return list(write(records, start))


def test_a_trace_can_be_written_as_microsoft_did() -> None:
    original = [HEADER, "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109"]
    assert lines_of(read(original), "2023-11-16 18:15:46.680590") == original
    assert lines_of(read(original))[1:] == [
        "1970-01-01 00:00:00.0000000,374,44",
        "1970-01-01 00:00:04.3145790,396,109",
    ]

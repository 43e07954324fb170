"""BurstGPT's traces (HPMLL/BurstGPT, CC-BY-4.0): months of requests to ChatGPT and GPT-4, with failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from millrace.core.trace.record import TraceRecord
from millrace.core.trace.rows import Row, csv_lines, table

COLUMNS = (
    "Timestamp",
    "Session ID",
    "Elapsed time",
    "Model",
    "Request tokens",
    "Response tokens",
    "Total tokens",
    "Log Type",
)
_REQUIRED = ("Timestamp", "Model", "Request tokens", "Response tokens")


def recognises(first_line: str) -> bool:
    """Whether this is the header of such a table, with the session columns of later releases or without."""
    return "Timestamp" in first_line and "Request tokens" in first_line


def read(lines: Iterable[str]) -> Iterator[TraceRecord]:
    """Yield a record a row; times count from the trace's first day, and failures had no answer tokens."""
    return (_record(index, row) for index, row in enumerate(table(lines, _REQUIRED)))


def write(records: Iterable[TraceRecord]) -> Iterator[str]:
    """Yield the lines of a trace; what the format has no column for is lost."""
    return csv_lines(COLUMNS, (_cells(record) for record in records))


def _record(index: int, row: Row) -> TraceRecord:
    output_tokens = row.whole("Response tokens")
    return TraceRecord(
        id=f"burstgpt-{index}",
        t_s=row.real("Timestamp"),
        input_tokens=row.whole("Request tokens"),
        output_tokens=output_tokens,
        session=row.text("Session ID"),
        model=row.text("Model"),
        kind=row.text("Log Type"),
        elapsed_s=row.real("Elapsed time") if row.text("Elapsed time") else None,
        failed=output_tokens == 0,
    )


def _cells(record: TraceRecord) -> tuple[object, ...]:
    output_tokens = 0 if record.failed else record.output_tokens
    return (
        record.t_s,
        record.session,
        record.elapsed_s,
        record.model,
        record.input_tokens,
        output_tokens,
        record.input_tokens + output_tokens,
        record.kind,
    )

"""Azure's LLM inference traces (AzurePublicDataset, 2023 to 2025): a stamp and two token counts a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from millrace.core.trace.record import TraceRecord
from millrace.core.trace.rows import Row, csv_lines, table

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_NS = 10**9
_EPOCH = datetime(1970, 1, 1)
_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII
)
_FIX = "write it like 2023-11-16 18:15:46.6805900, with a time zone or without"


def recognises(first_line: str) -> bool:
    """Whether this is the header of such a table."""
    return "TIMESTAMP" in first_line and "ContextTokens" in first_line


def read(lines: Iterable[str]) -> Iterator[TraceRecord]:
    """Yield a record a row; times are exact to the nanosecond and count from the first row."""
    start_ns: int | None = None
    for index, row in enumerate(table(lines, COLUMNS)):
        now_ns = _nanoseconds(row)
        start_ns = now_ns if start_ns is None else start_ns
        yield _record(index, row, (now_ns - start_ns) / _NS)


def write(records: Iterable[TraceRecord], start: str = "1970-01-01 00:00:00") -> Iterator[str]:
    """Yield the lines of a trace that began at `start`; what the format has no column for is lost."""
    began = datetime.fromisoformat(start)
    return csv_lines(COLUMNS, ((_stamp(began, r.t_s), r.input_tokens, r.output_tokens) for r in records))


def _record(index: int, row: Row, t_s: float) -> TraceRecord:
    output_tokens = row.whole("GeneratedTokens")
    return TraceRecord(
        id=f"azure-{index}",
        t_s=t_s,
        input_tokens=row.whole("ContextTokens"),
        output_tokens=output_tokens,
        images=row.whole("NumImages") if row.text("NumImages") else 0,
        failed=output_tokens == 0,
    )


def _nanoseconds(row: Row) -> int:
    """Nanoseconds since 1970; the traces have 7-digit fractions, one more than datetime holds."""
    text = row.text("TIMESTAMP") or ""
    found = _STAMP.fullmatch(text)
    if not found:
        raise row.error("TIMESTAMP", text, _FIX)
    date, clock, fraction, sign, hours, minutes = found.groups()
    try:
        since = datetime.fromisoformat(f"{date} {clock}") - _EPOCH
    except ValueError:
        raise row.error("TIMESTAMP", text, _FIX) from None
    seconds = since.days * 86_400 + since.seconds
    if sign:
        seconds -= int(sign + "1") * (int(hours) * 3600 + int(minutes) * 60)
    return seconds * _NS + int((fraction or "0").ljust(9, "0"))


def _stamp(began: datetime, t_s: float) -> str:
    """Format a time with the trace's 7 digits; datetime holds 6, so the ticks of 100 ns are kept apart."""
    seconds, ticks = divmod(round(t_s * 10**7) + began.microsecond * 10, 10**7)
    moment = began.replace(microsecond=0) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ticks:07d}"

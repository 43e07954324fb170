"""Millrace's own trace format: a header line, then one record a line, with nothing lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from millrace.core.trace.record import TraceError, TraceRecord
from millrace.core.trace.rows import json_row, json_rows

SCHEMA = "millrace.trace/1"


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line: which schema the rows follow, and where they came from."""

    schema: str = ""
    source: str | None = None


_HEADER = msgspec.json.Decoder(Header)
_RECORD = msgspec.json.Decoder(TraceRecord)


def recognises(first_line: str) -> bool:
    """Whether this is the header of such a trace, of any version."""
    return first_line.startswith("{") and '"millrace.trace/' in first_line


def read(lines: Iterable[str]) -> Iterator[TraceRecord]:
    """Yield the records below the header."""
    numbered = iter(lines)
    header = json_row(1, next(numbered, "").strip().removeprefix("\ufeff"), _HEADER)
    if header.schema != SCHEMA:
        raise TraceError(
            1, "schema", f"is {header.schema!r}", f"this Millrace reads {SCHEMA!r}: update one of them"
        )
    for _, record in json_rows(numbered, _RECORD, first=2):
        yield record


def write(records: Iterable[TraceRecord], source: str | None = None) -> Iterator[str]:
    """Yield the header and a line a record; `source` says where the trace came from."""
    yield msgspec.json.encode({"schema": SCHEMA} | ({"source": source} if source else {})).decode()
    for record in records:
        yield msgspec.json.encode(record).decode()

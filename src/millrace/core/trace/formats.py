"""Reading and writing traces in any known format; a reader finds out the format from the first line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal, get_args

from millrace.core.trace import azure, burstgpt, mooncake, native
from millrace.core.trace.record import TraceError, TraceRecord

Format = Literal["millrace", "azure", "mooncake", "burstgpt"]


def detect(first_line: str) -> Format:
    """Name the format that a trace with this first line has. Raises TraceError if it is none of them."""
    line = first_line.strip().removeprefix("\ufeff")
    if native.recognises(line):
        return "millrace"
    if azure.recognises(line):
        return "azure"
    if mooncake.recognises(line):
        return "mooncake"
    if burstgpt.recognises(line):
        return "burstgpt"
    problem = f"{line[:60]!r} begins no known trace" if line else "the trace is empty"
    raise TraceError(1, "header", problem, f"convert it to one of {', '.join(get_args(Format))}")


def read_trace(
    lines: Iterable[str],
    *,
    spread: bool = True,
    drop_failed: bool = False,
    block_tokens: int = mooncake.BLOCK_TOKENS,
) -> Iterator[TraceRecord]:
    """Yield the records of a trace in file order, reading only as far as asked.

    `spread` undoes the 3 s rounding of Mooncake's stamps, whose blocks have `block_tokens` tokens;
    `drop_failed` leaves out requests that got no answer, which are marked otherwise.
    Raises TraceError for the first row that cannot be read, when it is reached.
    """
    rows = iter(lines)
    first = next(rows, "")
    every = chain([first], rows)
    match detect(first):
        case "millrace":
            records = native.read(every)
        case "azure":
            records = azure.read(every)
        case "mooncake":
            records = mooncake.read(every, block_tokens=block_tokens, spread=spread)
        case "burstgpt":
            records = burstgpt.read(every)
    return (r for r in records if not r.failed) if drop_failed else records


def write_trace(records: Iterable[TraceRecord], format: Format) -> Iterator[str]:
    """Yield the lines of a trace, without line ends. Only `millrace` keeps every field."""
    match format:
        case "millrace":
            return native.write(records)
        case "azure":
            return azure.write(records)
        case "mooncake":
            return mooncake.write(records)
        case "burstgpt":
            return burstgpt.write(records)

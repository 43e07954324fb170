"""Reading and writing traces in any known format; a reader finds out the format from the first line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Literal, get_args

from millrace.core.trace import azure, burstgpt, mooncake, native, served
from millrace.core.trace.record import TraceError, TraceRecord

Format = Literal["millrace", "azure", "mooncake", "burstgpt"]

_WRITERS: dict[Format, Callable[[Iterable[TraceRecord]], Iterator[str]]] = {
    "millrace": native.write,
    "azure": azure.write,
    "mooncake": mooncake.write,
    "burstgpt": burstgpt.write,
}


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
    """Yield the records of a trace in file order, reading little further than asked; event logs will do.

    `spread` undoes the 3 s rounding of Mooncake's stamps, whose blocks have `block_tokens` tokens;
    `drop_failed` leaves out requests that got no answer, which are marked otherwise.
    Raises TraceError at once if the format is unknown, and for a row that cannot be read when it is reached.
    """
    rows = iter(lines)
    first = next(rows, "")
    readers: dict[Format, Callable[[Iterable[str]], Iterator[TraceRecord]]] = {
        "millrace": native.read,
        "azure": azure.read,
        "mooncake": partial(mooncake.read, block_tokens=block_tokens, spread=spread),
        "burstgpt": burstgpt.read,
    }
    log = served.recognises(first.strip().removeprefix("\ufeff"))
    records = (served.read if log else readers[detect(first)])(chain([first], rows))
    return (r for r in records if not r.failed) if drop_failed else records


def write_trace(records: Iterable[TraceRecord], format: Format) -> Iterator[str]:
    """Yield the lines of a trace, without line ends. Only `millrace` keeps every field."""
    return _WRITERS[format](records)

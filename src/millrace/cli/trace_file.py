"""Writes a trace to a file, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from millrace.core.trace import Format, TraceRecord, write_trace


def check_target(trace: str, out: Path) -> None:
    """Raise ValueError if `out` is no place for a file, or the very file that the trace is read from."""
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it, or name another")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; name a file in it")
    if out.exists() and Path(trace).exists() and out.samefile(trace):
        raise ValueError(f"{out}: is the trace itself, which would be lost; name another file")


def write_file(records: Iterable[TraceRecord], out: Path, to: Format) -> int:
    """Write the records to a checked target, replacing what is there; return how many there were."""
    partial = out.with_name(out.name + ".part")
    count = -1 if to != "mooncake" else 0
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            for line in write_trace(records, to):
                file.write(line + "\n")
                count += 1
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return count

"""Writes a trace to a file, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from millrace.core.trace import Format, TraceRecord, write_trace


def write_file(records: Iterable[TraceRecord], out: Path, to: Format) -> int:
    """Write the records, replacing what is there; return how many there were."""
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it, or name another")
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

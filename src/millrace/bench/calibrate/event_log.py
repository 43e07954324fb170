"""Reads the event log of a gateway for what it tells of its engines' steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from millrace.control.log import read_entry, read_header
from millrace.core.calibration import Recorded, recorded
from millrace.core.event import Action, Event

_LEAST_ALONE = 20
_LEAST_LENGTHS = 3


def read_log(path: Path, *, step_tokens: int, replica: str | None = None) -> Recorded:
    """Return the samples of a log. Raises ValueError if it cannot be read, or tells too little, and what."""
    found = recorded(_entries(path), step_tokens=step_tokens, replica=replica)
    where = f"{path}: " + (f"replica {replica}: " if replica else "")
    if found.alone < _LEAST_ALONE:
        raise ValueError(
            f"{where}{found.alone} of {found.finished} finished requests were streamed, with token counts, "
            f"while nothing else was on their replica; a fit needs {_LEAST_ALONE}. Calibrate by URL, or log "
            "a quieter hour"
        )
    if found.lengths < _LEAST_LENGTHS:
        raise ValueError(
            f"{where}prompts of {found.lengths} different lengths; a fit needs {_LEAST_LENGTHS} to tell the "
            "price of a token from that of a step"
        )
    if not any(one.kind == "decode" for one in found.samples):
        raise ValueError(f"{where}no answer has a second token; a fit needs some to price decodes")
    return found


def _entries(path: Path) -> Iterator[tuple[Event, Sequence[Action]]]:
    with path.open("rb") as lines:
        read_header(next(lines, b""))
        for number, line in enumerate(lines, 2):
            entry = read_entry(line, number)
            yield entry.event, entry.actions

"""Appends what was decided to a file, off the hot path: one line per event, written every half second.

A log with holes cannot be replayed, so when the disk fails or cannot keep up the log ends there, with a
line on stderr, and the gateway goes on.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from io import FileIO
from pathlib import Path
from threading import Lock

from millrace.control.log import entry
from millrace.core.event import Action, Event

FLUSH_S = 0.5
BUFFER_LIMIT_BYTES = 64 << 20


class Journal:
    """An event log. An existing file of the same name is moved aside first: one file, one run."""

    def __init__(self, path: Path, header: bytes) -> None:
        """Raises OSError when the file cannot be made."""
        _move_aside(path)
        self._path = path
        self._file: FileIO | None = path.open("wb", buffering=0)
        self._lines = deque((header,))
        self._buffered_bytes = 0
        self._writing = Lock()

    def note(self, event: Event, actions: list[Action]) -> None:
        """Remember an event and the answer to it."""
        if self._file is not None:
            line = entry(event, actions)
            self._lines.append(line)
            self._buffered_bytes += len(line)

    async def keep_writing(self) -> None:
        """Write what was noted, again and again."""
        while self._file is not None:
            await asyncio.sleep(FLUSH_S)
            noted_bytes, self._buffered_bytes = self._buffered_bytes, 0
            await asyncio.to_thread(self._write)
            if self._buffered_bytes + noted_bytes > BUFFER_LIMIT_BYTES:
                self._give_up("the disk cannot keep up")

    def close(self) -> None:
        """Write the rest, after whatever is being written."""
        self._write()
        self._drop_file()

    def _write(self) -> None:
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            rest = memoryview(b"".join(lines))
            try:
                while rest and self._file is not None:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError as error:
                self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        print(f"the event log {self._path} ends here: {why}", file=sys.stderr, flush=True)
        self._drop_file()

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _move_aside(path: Path) -> None:
    if not path.is_file():
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(aside)

"""The event log's file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from millrace.core.event import Cancel, Cancelled, Ticked
from millrace.gateway.journal import Journal


def test_lines_are_in_the_file_after_closing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log", b"header\n")
    journal.note(Ticked(1.0), [])
    journal.note(Cancelled(2.0, "a"), [Cancel("a", "r")])
    journal.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines[0] == b"header"
    assert len(lines) == 3
    assert b"Cancelled" in lines[2]
    assert b"Cancel" in lines[2]


def test_lines_are_written_while_the_journal_is_kept(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        journal = Journal(tmp_path / "log", b"header\n")
        writing = asyncio.create_task(journal.keep_writing())
        until_s = monotonic() + 60
        while not (tmp_path / "log").read_bytes() and monotonic() < until_s:
            await asyncio.sleep(0.02)
        writing.cancel()
        journal.close()
        return (tmp_path / "log").read_bytes()

    assert asyncio.run(scenario()) == b"header\n"


def test_an_earlier_log_is_moved_aside(tmp_path: Path) -> None:
    for number in range(3):
        Journal(tmp_path / "log", b"%d\n" % number).close()
    assert [(tmp_path / name).read_text() for name in ("log.1", "log.2", "log")] == ["0\n", "1\n", "2\n"]


def test_a_place_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "missing" / "log", b"")


def test_a_disk_that_is_full_ends_the_log_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(Path("/dev/full"), b"header\n")
    journal.close()
    journal.note(Ticked(1.0), [])
    assert "the event log /dev/full ends here: " in capsys.readouterr().err

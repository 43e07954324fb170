"""What the tests of launching share: small servers to start, and a look at whether they are gone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from millrace.launch import Command

SERVE = """
import os, signal, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(os.getpid(), "was given:", *sys.argv[2:], flush=True)
print(f"ready http://127.0.0.1:{server.getsockname()[1]}", file=sys.stderr, flush=True)
"""
"""Announces itself and ends; to be followed by what it does next."""


def python(code: str, *more: str) -> Command:
    """The command of a Python program that is given the port and `more`."""

    def command(port: int) -> Sequence[str]:
        return (sys.executable, "-S", "-c", code, str(port), *more)

    return command


def all_end(pids: Iterable[int], within_s: float = 5.0) -> bool:
    """Whether every process is gone before the deadline."""
    left, deadline_s = list(pids), time.monotonic() + within_s
    while any(map(_is_running, left)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


def _is_running(pid: int) -> bool:
    """A zombie counts as gone: nobody may be there to reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

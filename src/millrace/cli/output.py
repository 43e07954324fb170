"""How every verb speaks: data on stdout, words on stderr, exit codes with one meaning each."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130

stderr = Console(stderr=True, highlight=False)


def counting_bar(*, transient: bool = False, quiet: bool = False) -> Progress:
    """A progress bar on stderr that counts; silent where nobody sees it. `transient` leaves no trace."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr, transient=transient, disable=quiet or not stderr.is_terminal)


class CommandError(Exception):
    """A command that cannot go on, with its exit code; the message says what to do next."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


def say(line: str) -> None:
    """Tell the person something that is not data."""
    print(line, file=sys.stderr, flush=True)


def put_json(value: Any) -> None:
    """Write one JSON value to stdout: indented for people, one line for programs."""
    text = msgspec.json.encode(value)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    sys.stdout.write(text.decode() + "\n")


def columns() -> int:
    """Return how wide a table on stdout may be; wide enough to keep its columns when that is no terminal."""
    return Console().width if sys.stdout.isatty() else 160


def put_table(renderable: Any) -> None:
    """Write a table to stdout."""
    Console(highlight=False, width=columns()).print(renderable)

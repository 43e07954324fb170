"""The command lines of Millrace's own servers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Command = Callable[[int], Sequence[str]]
"""Given a port (0: any free one), the argv of a server that says `ready URL` on stderr once it serves."""

Front = Callable[[Sequence[str]], Command]
"""Given the engines' URLs, the command of the gateway in front of them."""

_MILLRACE = (sys.executable, "-m", "millrace")


def engine_command(model: Path | str, *, threads: int = 1, options: Sequence[str] = ()) -> Command:
    """Return the command of `millrace engine` for a model folder; `options` are appended as they are."""

    def command(port: int) -> Sequence[str]:
        own = ("--model", str(model), "--port", str(port), "--threads", str(threads))
        return (*_MILLRACE, "engine", *own, *options)

    return command


def gateway_command(*, routing: str, event_log: Path | None = None, options: Sequence[str] = ()) -> Front:
    """Return the command of `millrace serve` with a routing policy; `options` are appended as they are."""
    log = () if event_log is None else ("--event-log", str(event_log))

    def front(backends: Sequence[str]) -> Command:
        urls = tuple(word for url in backends for word in ("--backend", url))

        def command(port: int) -> Sequence[str]:
            return (*_MILLRACE, "serve", *urls, "--routing", routing, "--port", str(port), *log, *options)

        return command

    return front

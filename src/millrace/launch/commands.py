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


def gateway_command(
    *,
    routing: str,
    event_log: Path | None = None,
    names: Sequence[str] = (),
    port: int = 0,
    options: Sequence[str] = (),
) -> Front:
    """Return the command of `millrace serve` with a routing policy; `options` are appended as they are.

    `names` are those of the engines, in their order, if they shall have any. `port` is where to listen
    the first time; 0 takes any free one.
    """
    log = () if event_log is None else ("--event-log", str(event_log))

    def front(backends: Sequence[str]) -> Command:
        named = [f"{name}={url}" for name, url in zip(names, backends, strict=True)] if names else backends
        engines = tuple(word for backend in named for word in ("--backend", backend))

        def command(again: int) -> Sequence[str]:
            own = ("--routing", routing, "--port", str(again or port))
            return (*_MILLRACE, "serve", *engines, *own, *log, *options)

        return command

    return front

"""Starts an engine process: takes its port, loads a checkpoint, serves it, and ends cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from types import FrameType

import uvloop

from millrace.core.batch import BatchingPolicy
from millrace.engine.settings import EngineSettings


def serve(settings: EngineSettings, batching: BatchingPolicy) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, 2 if it cannot start, 1 if it fails.

    Prints `ready http://HOST:PORT` to stderr once it accepts requests. Main thread only.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_loading)
    # Threads that spin while they wait for each other bring an engine with a busy neighbour to a standstill.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ExitStack() as held:
        try:
            listener = held.enter_context(_bind(settings.host, settings.port, "port"))
            kv_listener = None
            if settings.kv_port is not None:
                kv_host = settings.kv_host or settings.host
                kv_listener = held.enter_context(_bind(kv_host, settings.kv_port, "kv-port"))
            # torch takes seconds to import; who cannot have the port should know at once.
            from millrace.engine.engine import load_engine
            from millrace.engine.hosting import host

            engine = load_engine(settings, batching)
        except (ValueError, OSError) as error:
            print(f"millrace engine: {error}", file=sys.stderr)
            return 2
        runner = held.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        return runner.run(host(settings, engine, listener, kv_listener))


def _stop_loading(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _bind(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --{option}"
        ) from error
    return listener

"""Starts an engine process: loads a checkpoint, serves it, and ends cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn
import uvloop

from millrace.core.batch import BatchingPolicy
from millrace.engine.engine import Engine, load_engine
from millrace.engine.loop import EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.server import Api
from millrace.engine.settings import EngineSettings
from millrace.engine.step_log import step_log

HANDLED = (signal.SIGTERM, signal.SIGINT)


def serve(settings: EngineSettings, batching: BatchingPolicy) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, 2 if it cannot start, 1 if the engine failed.

    Prints `ready http://HOST:PORT` to stderr once it accepts requests. Main thread only.
    """
    for number in HANDLED:
        signal.signal(number, _stop_loading)
    with ExitStack() as held:
        try:
            listener = held.enter_context(_bind(settings))
            engine = load_engine(settings, batching)
        except (ValueError, OSError) as error:
            print(f"millrace engine: {error}", file=sys.stderr)
            return 2
        runner = held.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        return runner.run(_serve(settings, engine, listener))


def _stop_loading(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _bind(settings: EngineSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        address = f"{settings.host}:{settings.port}"
        raise ValueError(f"cannot listen on {address}: {error.strerror}; choose another --port") from error
    return listener


async def _serve(settings: EngineSettings, engine: Engine, listener: socket.socket) -> int:
    metrics = Metrics(engine.replica, settings.names[0])
    with step_log(settings.step_log) as observe:
        loop = EngineLoop(engine.replica, engine.executor, metrics, waiting=settings.waiting, observe=observe)
        api = Api(engine.service, loop, metrics, body_bytes=settings.body_bytes)
        server = _Server(_config(api, settings))
        steps = asyncio.create_task(loop.run())
        steps.add_done_callback(server.stop)
        await server.serve(sockets=[listener])
        return await _stopped(steps)


def _config(api: Api, settings: EngineSettings) -> uvicorn.Config:
    return uvicorn.Config(
        api.app(),
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )


class _Server(uvicorn.Server):
    """uvicorn, but a signal is a wish to end and not a death, and readiness is told."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in HANDLED:
            signal.signal(number, self.handle_exit)
        yield

    def stop(self, _: asyncio.Task[None]) -> None:
        """End like on SIGTERM."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"ready http://{shown}:{port}", file=sys.stderr, flush=True)


async def _stopped(steps: asyncio.Task[None]) -> int:
    """End the step loop; its exception, if it had one, is the process's last word."""
    steps.cancel()
    (failure,) = await asyncio.gather(steps, return_exceptions=True)
    if isinstance(failure, asyncio.CancelledError):
        return 0
    print(f"millrace engine: a step failed: {failure!r}", file=sys.stderr)
    return 1

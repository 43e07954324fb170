"""Runs an engine behind uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import uvicorn

from millrace.engine.engine import Engine
from millrace.engine.errors import stopping
from millrace.engine.kv_events import publishing
from millrace.engine.loop import EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.port import Port, listening
from millrace.engine.server import Api
from millrace.engine.settings import EngineSettings
from millrace.engine.step_log import step_log
from millrace.engine.transfers import Transfers
from millrace.replica.executor import Step, StepResult

# A gateway keeps connections for its next requests; one that closes early meets requests on their way.
IDLE_S = 120
CANNOT_START = 2
# How long clients may take to read that their answer was ended.
FAREWELL_S = 5
LOOK_S = 0.02
EVERYWHERE = ("0.0.0.0", "::")


async def host(
    settings: EngineSettings,
    engine: Engine,
    listener: socket.socket,
    kv_listener: socket.socket | None = None,
) -> int:
    """Serve on the listener until SIGTERM or SIGINT (exit code 0), or until steps keep failing (1).

    Other engines fetch KV caches at `kv_listener`, if there is one. Returns 2 if the KV events cannot be
    published where they shall be.
    """
    metrics = Metrics(engine.replica, settings.names[0])
    async with AsyncExitStack() as held:
        log = held.enter_context(step_log(settings.step_log))

        def observe(step: Step, result: StepResult) -> None:
            engine.times.see(step.shape, result.seconds)
            log(step, result)

        try:
            tell = await held.enter_async_context(publishing(settings, engine.replica))
        except ValueError as error:
            print(f"millrace engine: {error}", file=sys.stderr)
            return CANNOT_START
        loop = EngineLoop(
            engine.replica, engine.executor, metrics, waiting=settings.waiting, observe=observe, tell=tell
        )
        transfers = Transfers(
            loop, engine.fingerprint, address=_address(settings, kv_listener), role=settings.role
        )
        api = Api(engine.service, loop, metrics, transfers, body_bytes=settings.body_bytes)
        server = _Server(_config(api, settings), loop, settings.drain_s)
        steps = asyncio.create_task(loop.run())
        steps.add_done_callback(server.stop)
        async with listening(Port(transfers.exports, transfers.format), kv_listener):
            await server.serve(sockets=[listener])
        return await _stopped(steps)


def _address(settings: EngineSettings, listener: socket.socket | None) -> tuple[str, int] | None:
    """Where others reach the KV port. Who listens everywhere is reached by the name of this machine."""
    if listener is None:
        return None
    host = settings.kv_host or settings.host
    return (socket.gethostname() if host in EVERYWHERE else host), listener.getsockname()[1]


def _config(api: Api, settings: EngineSettings) -> uvicorn.Config:
    return uvicorn.Config(
        api.app(),
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s + FAREWELL_S),
    )


class _Server(uvicorn.Server):
    """uvicorn, but it tells when it is ready, and ends what takes too long with an error instead of a cut."""

    def __init__(self, config: uvicorn.Config, loop: EngineLoop, drain_s: float) -> None:
        super().__init__(config)
        self._loop, self._drain_s = loop, drain_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Go on listening until nothing is under way: others learn that it drains, and take answers over."""
        clock = asyncio.get_running_loop()
        until_s = clock.time() + self._drain_s
        self._loop.drain()
        while not (self._loop.idle or self.force_exit) and clock.time() < until_s:
            await asyncio.sleep(LOOK_S)
        too_long = clock.call_at(until_s, self._loop.close, stopping)
        await super().shutdown(sockets)
        too_long.cancel()


async def _stopped(steps: asyncio.Task[None]) -> int:
    """End the step loop; its exception, if it had one, is the process's last word."""
    steps.cancel()
    (failure,) = await asyncio.gather(steps, return_exceptions=True)
    if isinstance(failure, asyncio.CancelledError):
        return 0
    print(f"millrace engine: giving up: {failure!r}", file=sys.stderr)
    return 1

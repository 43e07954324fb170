"""Runs a gateway: listens, looks after the engines, and stops without losing a stream."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from time import monotonic

from millrace import __version__
from millrace.control import Controller
from millrace.control.log import header
from millrace.core.event import Reported
from millrace.gateway.app import Gateway
from millrace.gateway.client import ClientConnection, House
from millrace.gateway.exchange import Exchange
from millrace.gateway.failover import ResumableExchange
from millrace.gateway.guarding import Guarding
from millrace.gateway.health import examine, watch
from millrace.gateway.journal import Journal
from millrace.gateway.listening import address, listen, port_of
from millrace.gateway.settings import GatewaySettings
from millrace.gateway.shadows import Shadows
from millrace.gateway.tokens import NO_TOKENIZERS, Tokenizer
from millrace.gateway.wording import Wording

FILES = 1 << 18
SWEEP_S = 0.5
DRAIN_STEP_S = 0.02
LAST_WRITES_S = 2.0
INTERRUPTED = 1


def run(
    settings: GatewaySettings,
    controller: Controller,
    shadows: Shadows | None = None,
    wording: Wording | None = None,
    *,
    guarding: Guarding | None = None,
    tokenizers: Mapping[str, Tokenizer] = NO_TOKENIZERS,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 if told twice.

    `shadows` are the controller's witness, if it has one, whose counts are on the metrics page. `wording`, if
    there is one, reads what requests say, and `guarding` watches how long their answers get. `tokenizers` are
    by the names of models; "" is for all others.

    Raises AddressError if it cannot listen, OSError if it cannot write its log.
    """
    _raise_file_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        gateway = listening(settings, controller, shadows, wording, guarding=guarding, tokenizers=tokenizers)
        return runner.run(_serve(gateway))


@asynccontextmanager
async def listening(
    settings: GatewaySettings,
    controller: Controller,
    shadows: Shadows | None = None,
    wording: Wording | None = None,
    *,
    guarding: Guarding | None = None,
    tokenizers: Mapping[str, Tokenizer] = NO_TOKENIZERS,
) -> AsyncIterator[Gateway]:
    """A gateway that serves while the block runs. Raises AddressError, and OSError if it cannot log."""
    gateway = Gateway(settings, controller, tokenizers)
    gateway.wording, gateway.guarding = wording, guarding
    if guarding is not None:
        gateway.metrics.further = guarding.families
    if shadows is not None:
        gateway.metrics.shadowed = shadows.counted
    servers = [await _listen(gateway, settings.host, settings.port, "port")]
    tasks: list[asyncio.Task[None]] = []
    try:
        gateway.port = port_of(servers[0])
        if settings.admin_port is not None:
            admin = await _listen(gateway.admin, settings.admin_host, settings.admin_port, "admin-port")
            servers.append(admin)
            gateway.admin.port = port_of(admin)
        gateway.journal = _journal(settings, controller)
        tasks = await _look_after(gateway)
        yield gateway
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.close()
        gateway.close()
        if gateway.journal is not None:
            gateway.journal.close()


async def _listen(house: House, host: str, port: int, setting: str) -> asyncio.Server:
    return await listen(lambda: ClientConnection(house), host, port, setting=setting)


async def _look_after(gateway: Gateway) -> list[asyncio.Task[None]]:
    """Introduce the engines to the controller, examine each once, and keep at it."""
    members = gateway.fleet.members.values()
    for member in members:
        gateway.tell(Reported(gateway.now_s(), member.engine.id, "starting", member.spec))
    await asyncio.gather(*(examine(gateway, member) for member in members))
    works = [_sweep(gateway), *(watch(gateway, member) for member in members)]
    if gateway.settings.kv_events:
        from millrace.gateway.kv_events.following import follow_engines  # needs pyzmq, which is an extra

        works.append(follow_engines(gateway))
    if gateway.journal is not None:
        works.append(gateway.journal.keep_writing())
    return [asyncio.create_task(work) for work in works]


async def drain(gateway: Gateway, hurry: asyncio.Event) -> None:
    """Take nothing new, finish what is in flight as long as `drain_s` allows, tell the rest why it is cut."""
    gateway.draining = True
    until_s = monotonic() + gateway.settings.drain_s
    while gateway.exchanges and monotonic() < until_s and not hurry.is_set():
        await asyncio.sleep(DRAIN_STEP_S)
    gateway.end_all("the gateway is shutting down")
    until_s = monotonic() + LAST_WRITES_S
    for client in list(gateway.clients):
        client.close()
    while gateway.clients and monotonic() < until_s and not hurry.is_set():
        await asyncio.sleep(DRAIN_STEP_S)


async def _serve(serving: AbstractAsyncContextManager[Gateway]) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()
    _on_signals(lambda: hurry.set() if stop.is_set() else stop.set())
    async with serving as gateway:
        settings = gateway.settings
        if gateway.admin.port is not None:
            admin = address(settings.admin_host, gateway.admin.port)
            print(f"admin http://{admin}", file=sys.stderr, flush=True)
        print(f"ready http://{address(settings.host, gateway.port)}", file=sys.stderr, flush=True)
        await stop.wait()
        print(f"draining {len(gateway.exchanges)} requests", file=sys.stderr, flush=True)
        await drain(gateway, hurry)
    return INTERRUPTED if hurry.is_set() else 0


def _journal(settings: GatewaySettings, controller: Controller) -> Journal | None:
    if settings.event_log is None:
        return None
    notes = {"started": datetime.now(UTC).isoformat(), "version": __version__, "backends": settings.backends}
    return Journal(settings.event_log, header(controller, **notes))


async def _sweep(gateway: Gateway) -> None:
    """Look at every connection now and then, for those that fell silent."""
    while True:
        due_s = monotonic() + SWEEP_S
        await asyncio.sleep(SWEEP_S)
        now_s = monotonic()
        gateway.metrics.loop_lag_s = max(0.0, now_s - due_s)
        exchanges = list(gateway.exchanges.values())
        gateway.remembered_bytes = sum(
            exchange.remembered_bytes for exchange in exchanges if isinstance(exchange, ResumableExchange)
        )
        for exchange in exchanges:
            _check(gateway, exchange, now_s)
        for client in (*gateway.clients, *gateway.admin.clients):
            client.check(now_s)


def _check(gateway: Gateway, exchange: Exchange, now_s: float) -> None:
    """Give up on an engine that is silent for too long, unless the client keeps it waiting."""
    connection, engine = exchange.connection, exchange.engine
    if connection is None or engine is None or connection.paused:
        return
    limit_s = gateway.fleet.patience_s(engine, begun=exchange.committed)
    if now_s - exchange.heard_s > limit_s:
        connection.fail("timeout", f"the engine sent nothing for {limit_s:g} s")


def _raise_file_limit() -> None:
    """Each stream takes two descriptors; the usual soft limit of 1024 would end at 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

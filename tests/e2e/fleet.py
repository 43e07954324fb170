"""A real fleet for end-to-end tests: engines with the demo model and a gateway, each a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from millrace.launch import Fleet, engine_command, gateway_command
from millrace.launch.commands import Command, Front
from tests.e2e.relay import Relay

OPTIONS = ("--kv-blocks", "512", "--max-num-batched-tokens", "256")


def engines(run_dir: Path, *names: str, options: Sequence[str] = ()) -> Fleet:
    """Engines of these names behind a gateway that takes them in turn."""
    return Fleet(
        engines=[engine_command("demo", threads=1, options=OPTIONS) for _ in names],
        gateway=_front(run_dir, names, options),
        run_dir=run_dir,
    )


def two_engines(run_dir: Path, relay: Relay | None = None, options: Sequence[str] = ()) -> Fleet:
    """Two engines behind a gateway that takes them in turn; the second may be behind a relay, too."""
    direct = _front(run_dir, ("one", "two"), options)

    def relayed(engines: Sequence[str]) -> Command:
        if relay is None:
            return direct(engines)
        relay.engine = engines[1]
        return direct([engines[0], relay.url])

    return Fleet(
        engines=[engine_command("demo", threads=1, options=OPTIONS) for _ in range(2)],
        gateway=relayed,
        run_dir=run_dir,
    )


def _front(run_dir: Path, names: Sequence[str], options: Sequence[str]) -> Front:
    return gateway_command(
        routing="round_robin",
        names=names,
        event_log=run_dir / "events.jsonl",
        options=("--scrape", "0.2", *options),
    )


async def until(true: Callable[[], Awaitable[bool]], *, within_s: float = 30.0) -> None:
    """Wait for something to become true, and fail if it does not."""
    async with asyncio.timeout(within_s):
        while not await true():
            await asyncio.sleep(0.05)


async def ready(session: aiohttp.ClientSession, url: str, replicas: int) -> bool:
    """Whether the gateway counts that many engines as ready."""
    async with session.get(f"{url}/metrics") as response:
        text = await response.text()
    found = [line for line in text.splitlines() if line.startswith("millrace_pool_ready_replicas")]
    return bool(found) and float(found[0].split()[-1]) == replicas

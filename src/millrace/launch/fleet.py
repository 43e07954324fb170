"""A whole fleet of child processes: engines first, then the gateway that knows their addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from millrace.launch.commands import Command, Front
from millrace.launch.keeping import keep
from millrace.launch.process import Process


class Fleet:
    """Engines and a gateway that live as long as the `async with` block, whatever ends it.

    Logs are files in `run_dir`. The children do not get the terminal's
    Ctrl-C: it cancels the block, and the block stops them.
    """

    def __init__(
        self,
        *,
        engines: Sequence[Command],
        gateway: Front,
        run_dir: Path,
        ready_within_s: float = 120.0,
        grace_s: float = 5.0,
    ) -> None:
        self.run_dir = run_dir
        self.engines = [Process(f"engine-{i}", c, run_dir / f"engine-{i}.log") for i, c in enumerate(engines)]
        self.gateway = self._gateway(gateway)
        self._ready_within_s = ready_within_s
        self._grace_s = grace_s

    async def __aenter__(self) -> Self:
        try:
            await self._start_engines()
            await self._start(self.gateway)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def switch_gateway(self, gateway: Front) -> None:
        """Replace the gateway by another one (another policy, say) in front of the same engines."""
        await self.gateway.stop(grace_s=self._grace_s)
        self.gateway = self._gateway(gateway)
        await self._start(self.gateway)

    async def kill(self, engine: Process) -> None:
        """End an engine without warning, as a crash would."""
        await engine.crash()

    async def restart(self, engine: Process) -> None:
        """Start an engine again on the port it had, ending it first if it still runs."""
        await engine.stop(grace_s=self._grace_s)
        await self._start(engine)

    async def keep_engines(self, tell: Callable[[str], None]) -> None:
        """Start engines again that end by themselves, on the ports they had, until cancelled.

        `tell` hears which engine ended how, and when it is back.
        """
        async with asyncio.TaskGroup() as group:
            for engine in self.engines:
                group.create_task(keep(engine, tell, within_s=self._ready_within_s))

    def _gateway(self, gateway: Front) -> Process:
        def command(port: int) -> Sequence[str]:
            return gateway([engine.url for engine in self.engines])(port)

        return Process("gateway", command, self.run_dir / "gateway.log")

    async def _start(self, process: Process) -> None:
        await process.start(within_s=self._ready_within_s)

    async def _start_engines(self) -> None:
        """Start all at once; the first failure is the one told, after the others are out of the way."""
        starts = [asyncio.ensure_future(self._start(engine)) for engine in self.engines]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise

    async def _stop(self) -> None:
        """Stop the gateway, then the engines; if that is cut short, kill what is left."""
        try:
            await self.gateway.stop(grace_s=self._grace_s)
            await asyncio.gather(*(engine.stop(grace_s=self._grace_s) for engine in self.engines))
        finally:
            for process in (self.gateway, *self.engines):
                process.kill()

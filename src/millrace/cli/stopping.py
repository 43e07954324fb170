"""SIGTERM, which process managers send, ends a command as Ctrl-C does: in order, children first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def run_until_told(work: Coroutine[None, None, T]) -> T:
    """Run to the end. SIGINT and SIGTERM cancel the work, which may take its time over ending, and raise
    KeyboardInterrupt once it has; a second one cancels that too.
    """
    return asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[None, None, T]) -> T:
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

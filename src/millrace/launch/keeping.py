"""Keeps a server running: one that ends is started again, after a pause that grows while it keeps failing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millrace.launch.process import LaunchError, Process

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""A server that ran this long had got over what ended it before."""


async def keep(process: Process, tell: Callable[[str], None], *, within_s: float) -> None:
    """Start a running server again on its port whenever it ends, until cancelled; `tell` hears of every step.

    It gets `within_s` seconds to be ready each time.
    """
    loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
    while True:
        began_s = loop.time()
        code = await process.ended()
        if loop.time() - began_s >= STEADY_S:
            pause_s = FIRST_PAUSE_S
        tell(f"{process.name} {_how(code)}; its log is {process.log}")
        pause_s = await _start_again(process, tell, pause_s=pause_s, within_s=within_s)


async def _start_again(
    process: Process, tell: Callable[[str], None], *, pause_s: float, within_s: float
) -> float:
    """Try until it is ready; return the pause that is due should it end soon."""
    while True:
        tell(f"starting {process.name} again in {pause_s:g} s")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        try:
            await process.start(within_s=within_s)
        except LaunchError as error:
            tell(str(error))
        else:
            tell(f"{process.name} is back at {process.url}")
            return pause_s


def _how(code: int) -> str:
    return f"exited with code {code}" if code >= 0 else f"was ended by signal {-code}"

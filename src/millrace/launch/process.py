"""One local server as a child process: started until it says `ready URL`, logged, and surely stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL
from contextlib import suppress
from pathlib import Path

from millrace.launch import leash
from millrace.launch.commands import Command

_READY = re.compile(rb"^ready (https?://[^\s/:]+:(\d+)\S*)\s*$", re.MULTILINE)
_POLL_S = 0.02
_TAIL_LINES = 12


class LaunchError(RuntimeError):
    """A process that did not come up; the message holds the end of its log."""


class Process:
    """A server in a process group of its own, whose output is appended to `log`, made with its folders.

    It writes to the file directly, so a busy parent never blocks it and the log outlives both.
    `url` is what it last announced, empty before that.
    """

    def __init__(self, name: str, command: Command, log: Path) -> None:
        self.name = name
        self.log = log
        self.url = ""
        self._command = command
        self._port = 0
        self._log_start_bytes = 0
        self._child: asyncio.subprocess.Process | None = None
        self._group: int | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._child is not None and self._child.returncode is None

    async def start(self, *, within_s: float) -> None:
        """Start it, on the port it had before if it had one, and wait until it is ready.

        Raises LaunchError if it exits or is not ready `within_s` seconds from now; then it is stopped.
        """
        assert not self.alive, f"{self.name} is running already"
        argv = [str(word) for word in self._command(self._port)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start_bytes = _size_bytes(self.log)
        with self.log.open("ab") as out:
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
                *argv,
                stdin=DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._group = self._child.pid
        try:
            await self._become_ready(self._child, within_s)
        except BaseException:
            await self.crash()
            raise

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """Ask its group to end (SIGTERM), and end it (SIGKILL) after the grace time. Safe to call again."""
        if self._child is not None:
            self._signal(signal.SIGTERM)
            try:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._child.wait(), grace_s)
            finally:
                self.kill()
            await self.crash()

    async def ended(self) -> int:
        """Wait until it ends, and return its exit code."""
        assert self._child is not None, f"{self.name} was never started"
        return await self._child.wait()

    async def crash(self) -> None:
        """End it at once without asking (SIGKILL), as a fault would, and wait until it is gone."""
        self.kill()
        if self._child is not None:
            await self._child.wait()
        self._group = None

    def kill(self) -> None:
        """Send SIGKILL to its group and return without waiting."""
        self._signal(signal.SIGKILL)

    def last_lines(self) -> str:
        """Return the end of what it wrote since it was last started."""
        lines = self._written().splitlines()[-_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, which may outlive its first process; nothing once it is gone."""
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)

    async def _become_ready(self, child: asyncio.subprocess.Process, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while not self._announced():
            if child.returncode is not None:
                raise LaunchError(self._failure(f"exited with code {child.returncode} before it was ready"))
            if loop.time() >= deadline_s:
                raise LaunchError(self._failure(f"was not ready within {within_s:g} s"))
            await asyncio.sleep(_POLL_S)

    def _announced(self) -> bool:
        found = _READY.search(self._written().encode())
        if found:
            self.url, self._port = found[1].decode().rstrip("/"), int(found[2])
        return found is not None

    def _written(self) -> str:
        with self.log.open("rb") as lines:
            lines.seek(self._log_start_bytes)
            return lines.read().decode(errors="replace")

    def _failure(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log}:\n{self.last_lines()}"


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

"""What others want done between two steps of an engine, when nobody reads or writes its KV cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    look: Callable[[], Callable[[], Any]]
    done: asyncio.Future[Any]


class Between:
    """Jobs that wait for the end of a step; `wake` lets an idle engine look at once."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: list[_Job] = []
        self._closed: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self._jobs)

    async def ask(self, look: Callable[[], Callable[[], T]]) -> T:
        """Have `look` called on the event loop, and what it returns on the thread of the steps.

        Nothing changes in between, so what `look` saw is still true. Raises what either raises, and what
        it was closed with.
        """
        if self._closed is not None:
            raise self._closed
        job = _Job(look, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake()
        result: T = await job.done
        return result

    async def run(self, pool: Executor) -> None:
        """Do what was asked until now, first come first served."""
        jobs, self._jobs = self._jobs, []
        loop = asyncio.get_running_loop()
        for job in jobs:
            if job.done.done():
                continue  # whoever asked has left
            try:
                result = await loop.run_in_executor(pool, job.look())
            except Exception as error:
                if not job.done.done():
                    job.done.set_exception(error)
            else:
                if not job.done.done():
                    job.done.set_result(result)

    def close(self, error: Exception) -> None:
        """Disappoint all that wait, and whoever asks later."""
        self._closed = error
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(error)

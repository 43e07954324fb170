"""The same requests at other moments, and many runs at a time: how much of a result was luck."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import TypeVar

from msgspec.structs import replace

from millrace.core.draw import draw_below
from millrace.core.trace import TraceRecord

BLOCK_GAPS = 64

T = TypeVar("T")
R = TypeVar("R")


def redraw_arrivals(records: Sequence[TraceRecord], seed: int) -> list[TraceRecord]:
    """Return the requests in their order with other gaps between them; seed 0 leaves them as they are.

    Gaps are drawn with replacement in runs of 64 neighbours, so bursts stay bursts. Prompts, answers and
    their order stay, and with them what caches can share. The rate differs from seed to seed, as it would
    from day to day. Raises ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must not be negative")
    ordered = sorted(records, key=lambda record: record.t_s)
    if seed == 0 or len(ordered) < 2:
        return ordered
    gaps_s = [after.t_s - before.t_s for before, after in pairwise(ordered)]
    times_s = [ordered[0].t_s]
    for gap_s in _drawn(gaps_s, seed):
        times_s.append(times_s[-1] + gap_s)
    return [replace(record, t_s=t_s) for record, t_s in zip(ordered, times_s, strict=True)]


def _drawn(gaps_s: Sequence[float], seed: int) -> Iterator[float]:
    """Yield as many gaps again, in runs that may wrap around the end."""
    for place in range(len(gaps_s)):
        run, within = divmod(place, BLOCK_GAPS)
        start = draw_below(len(gaps_s), "arrivals", seed, run)
        yield gaps_s[(start + within) % len(gaps_s)]


def spread(function: Callable[[T], R], tasks: Sequence[T], *, processes: int) -> Iterator[R]:
    """Yield what the function makes of each task, in their order, worked out by several processes.

    With one process, or one task, everything happens in this one. Otherwise function and tasks are
    pickled for fresh interpreters, which end at once when this one does, or gives up on the rest.
    """
    workers = min(processes, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    with ours, theirs, ProcessPoolExecutor(workers, context, _end_with, (theirs,)) as pool:
        try:
            yield from _started(pool, function, tasks)
        except BaseException:
            ours.close()  # or the pool would wait until what is under way is finished
            raise


def _started(pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """Start processes that do not get the terminal's Ctrl-C: it is this one that ends them."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        return pool.map(function, tasks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_with(parent: Connection) -> None:
    """In a process of the pool: watch for the end of the connection, which even a killed parent closes."""
    Thread(target=_end_when, args=(parent,), daemon=True).start()


def _end_when(parent: Connection) -> None:
    parent.poll(None)
    os._exit(1)

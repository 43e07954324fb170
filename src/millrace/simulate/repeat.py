"""The same requests at other moments, and many runs at a time: how much of a result was luck."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
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
    pickled for fresh interpreters.
    """
    workers = min(processes, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, tasks)

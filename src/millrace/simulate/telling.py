"""Simulated engines that say what enters and leaves their prefix caches, as KV events do.

An engine speaks at the end of steps that begin or end an answer. So it says the same whether its steps are
leapt over or not; what it has computed of a prompt in between is told with the prompt's first token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from millrace.core.blocks import chain_contents
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, CacheCleared
from millrace.replica.noting import NotingPool
from millrace.replica.replica import Replica
from millrace.simulate.job import Job
from millrace.simulate.lockstep import Lockstep
from millrace.simulate.server import Server

KEY_BITS = (1 << 64) - 1  # that listeners keep of a block's name


class Teller:
    """Tells of one server's cache, through all its lives."""

    def __init__(self, server: Server) -> None:
        self._limits, self._make = server.limits, server.fresh
        self._pool = NotingPool(0)
        self._restarted = False
        server.fresh = self._fresh
        server.replica = self._fresh()
        self._restarted = False

    def take(self) -> tuple[CacheChange, ...]:
        """Return what has changed since the last time: what left, and then what came, in rows."""
        pool = self._pool
        changes: list[CacheChange] = [CacheCleared()] if self._restarted else []
        if pool.left:
            changes.append(BlocksRemoved(tuple(sorted(map(_key, pool.left)))))
        changes += (
            BlocksStored(keys, keys, None if front is None else _key(front))
            for front, keys in _rows(pool.came)
        )
        pool.came.clear()
        pool.left.clear()
        self._restarted = False
        return tuple(changes)

    def _fresh(self) -> Replica:
        replica = self._make()
        pool = NotingPool(self._limits.kv_blocks, caching=self._limits.prefix_caching)
        replica.batch.pool = self._pool = pool
        self._restarted = True
        return replica


def tellers(engines: Iterable[object]) -> tuple[dict[str, Teller], int]:
    """Let engines tell of their caches; return who does, by id, and the size of their blocks in tokens.

    Those that only encode have none. Raises ValueError for several caches of an engine, and for blocks of
    several sizes.
    """
    telling: dict[str, Teller] = {}
    sizes: set[int] = set()
    for engine in engines:
        if isinstance(engine, Lockstep):
            raise ValueError(
                f"prefix_knowledge is events, but {engine.id} has a cache in each of its ranks: leave out "
                "ep, or say sent"
            )
        if isinstance(engine, Server):
            telling[engine.id] = Teller(engine)
            sizes.add(engine.limits.block_tokens)
    if len(sizes) > 1:
        raise ValueError(
            f"prefix_knowledge is events, but blocks have {min(sizes)} and {max(sizes)} tokens: give all "
            "replicas the same block_size"
        )
    return telling, min(sizes, default=1)


def in_blocks(job: Job, block_tokens: int) -> Job:
    """Let the gateway know a job's prompt in blocks of so many tokens, named as engines of that size do.

    Raises ValueError if they do not fit the blocks of the trace.
    """
    contents = map(_key, job.engine_blocks(block_tokens))
    request = replace(job.request, blocks=chain_contents(contents), block_tokens=block_tokens)
    return replace(job, request=request)


def _rows(came: dict[int, int | None]) -> Iterator[tuple[int | None, tuple[int, ...]]]:
    """Yield rows of blocks, and what is in front of each, in the same order whenever they came."""
    behind: dict[int | None, list[int]] = {}
    for content, front in came.items():
        behind.setdefault(front, []).append(content)
    heads = sorted(content for content, front in came.items() if front not in came)
    for head in heads:
        row = [head]
        while following := sorted(behind.get(row[-1], ())):
            row.append(following[0])
            heads += following[1:]
        yield came[head], tuple(map(_key, row))


def _key(content: int) -> int:
    return content & KEY_BITS

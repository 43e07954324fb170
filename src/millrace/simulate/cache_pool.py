"""A cache of prompts that all replicas share: its blocks are loaded where that is sooner than computing them.

Every replica reaches every block at the same price, so it does not matter which of them computed a prompt
before. Loads go on beside the steps, one at a time for each replica; then the request is queued, and finds
the blocks in the replica's own prefix cache. What a replica computed is written behind its steps, in no time.

Source: the pool for caching of CloudMatrix-Infer (Zuo et al., arXiv:2506.12708).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from millrace.control import Controller
from millrace.core.batch import BatchingPolicy
from millrace.core.cost import ENDLESS
from millrace.core.memory_tiers import Tier
from millrace.replica.progress import Progress
from millrace.replica.table import Table
from millrace.simulate.engine import Engine, ServerSpec
from millrace.simulate.flight import Flight
from millrace.simulate.handover import Handover, SplitWorld
from millrace.simulate.job import Job
from millrace.simulate.links import Carried, Link, Links, Transfer
from millrace.simulate.server import Server
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.ties import Ties


class Shelf:
    """The blocks of one model in the pool, as many as have room; the one used longest ago goes first."""

    def __init__(self, most_blocks: int) -> None:
        self._most = most_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def matched(self, blocks: Sequence[int]) -> int:
        """Return how many of the leading blocks are here."""
        return sum(1 for _ in takewhile(self._blocks.__contains__, blocks))

    def use(self, blocks: Sequence[int]) -> None:
        """Store a prompt's blocks, or note that they were used; its tail is forgotten before its head."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


class PooledServer(Server):
    """An engine into whose prefix cache blocks come from outside, between two of its steps.

    `lately` is what it computed or loaded last, as far as its memory has room: that is not asked of the pool.
    """

    def __init__(
        self, spec: ServerSpec, batching: BatchingPolicy, *, leaping: bool = True, longest: int = ENDLESS
    ) -> None:
        super().__init__(spec, batching, leaping=leaping, longest=longest)
        self._coming: list[list[int]] = []
        self.lately = Shelf(self.limits.kv_blocks)

    def stock(self, blocks: list[int]) -> None:
        """Put blocks into the prefix cache before the next step, unless requests hold too much memory."""
        self._coming.append(blocks)

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run with what has come."""
        for blocks in self._coming:
            self._put(blocks)
        self._coming.clear()
        return super().start(now_s, slowdown)

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once; return what `Server` does."""
        self._coming.clear()
        self.lately = Shelf(self.limits.kv_blocks)
        return super().drop(now_s)

    def _put(self, blocks: list[int]) -> None:
        memory, table = self.replica.batch.pool, Table()
        here = memory.matched(blocks)
        if memory.acquire(table, blocks[:here], len(blocks)):
            if here < len(blocks):
                memory.publish(table, blocks, here, len(blocks))
            memory.release(table)


@dataclass(eq=False, slots=True)
class Load:
    """Blocks on their way from the pool to a replica, and what is to be done when they are there."""

    server: PooledServer
    blocks: list[int]
    then: Callable[[], object]


class PooledWorld(SplitWorld):
    """A world with a pool: every prompt is looked up in it before it is queued anywhere."""

    def __init__(
        self,
        controller: Controller,
        servers: Iterable[Engine],
        ties: Ties,
        surroundings: Surroundings | None = None,
        *,
        splitting: Mapping[str, Any],
        carried: Carried | None,
        serving: Mapping[str, PooledServer],
        pool: Tier,
    ) -> None:
        super().__init__(controller, servers, ties, surroundings, splitting=splitting, carried=carried)
        self._pool = pool
        self._serving = serving
        self._shelves: dict[str, Shelf] = {}
        self._loads: list[Load] = []
        self._ways = Links(self._agenda, Link(bytes_per_s=pool.bytes_per_s, latency_s=pool.latency_s), None)

    def _deliver(self, flight: Flight) -> None:
        assert flight.replica is not None
        self._look_up(self._serving[flight.replica], flight.rest, partial(self._queue, flight))

    def _queue(self, flight: Flight) -> None:
        if self._flights.get(flight.job.request.id) is flight:  # else its client has left
            super()._deliver(flight)

    def _prefill(self, handover: Handover) -> None:
        then = partial(super()._prefill, handover)
        self._look_up(self._serving[handover.source], handover.flight.rest, then)

    def _look_up(self, server: PooledServer, job: Job, then: Callable[[], object]) -> None:
        """Load what is in the pool and not at the replica, if that is worth it, and go on."""
        blocks = job.engine_blocks(server.limits.block_tokens) if server.limits.prefix_caching else []
        there = self._shelf(job.request.model, server).matched(blocks)
        lacking = (there - server.lately.matched(blocks)) * server.limits.block_tokens if there else 0
        if lacking <= 0 or not self._is_worth(server, lacking):
            then()
            return
        load = Load(server, blocks[:there], then)
        self._loads.append(load)
        self._ways.ask(
            Transfer(
                source=f"{server.id}'s way to the pool",
                target=server.id,
                bytes=lacking * _kv_bytes(server),
                then=self._loaded,
                whom=load,
            )
        )

    def _is_worth(self, server: PooledServer, tokens: int) -> bool:
        """Whether loading takes less time than computing; at an unknown speed it is taken to do."""
        speed = server.spec.prefill_tokens_per_s
        return speed is None or self._pool.move_s(tokens * _kv_bytes(server)) < tokens / speed

    def _loaded(self, load: Load) -> None:
        self._loads.remove(load)
        server = load.server
        if not self._is_down(server.id):
            server.stock(load.blocks)
            server.lately.use(load.blocks)
            if server.busy and server.cut(self.now_s):
                self._agenda.at(server.end_s, self._ended, self.servers[server.id])
        load.then()
        self._retire(self.servers[server.id])

    def _progressed(self, progress: Progress) -> None:
        for sequence in progress.first:
            flight = self._flights.get(sequence.id)
            if flight is not None and flight.replica is not None:
                server = self._serving[flight.replica]
                self._shelf(flight.job.request.model, server).use(sequence.blocks)
                server.lately.use(sequence.blocks)
        super()._progressed(progress)

    def _retire(self, server: Engine) -> None:
        if all(load.server.id != server.id for load in self._loads):
            super()._retire(server)

    def _shelf(self, model: str, server: PooledServer) -> Shelf:
        """Return the blocks of a model; its replicas have blocks of one size, and share the room evenly."""
        shelf = self._shelves.get(model)
        if shelf is None:
            models = {name for one in self._serving.values() for name in one.spec.models}
            block_bytes = _kv_bytes(server) * server.limits.block_tokens
            shelf = Shelf(int(self._pool.capacity_bytes / len(models | {model}) / block_bytes))
            self._shelves[model] = shelf
        return shelf


def _kv_bytes(server: Server) -> float:
    if server.kv_bytes_per_token is None:
        raise ValueError(f"{server.id} shares a cache pool: say its kv_bytes_per_token")
    return server.kv_bytes_per_token

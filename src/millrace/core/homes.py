"""Where prompts live: two replicas each, found by hashing how the prompt begins, on two independent rings.

Source: DualMap (arXiv 2602.06502). The number of blocks in a key adapts to how hot a prefix is: one that has
more than 2/n of the latest requests, of n replicas, would be too much for its two homes, so longer prefixes
tell its requests apart, until it has less than 1/n. How many requests are the latest ones, and that what a
prefix has is counted against the full window even before there have been so many, is not from the paper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from millrace.core.event import Arrived, Event, Reported
from millrace.core.fleet import ANSWERING, ReplicaView, Sent
from millrace.core.request import Request
from millrace.core.ring import ring_of

MOST_BLOCKS = 16


class Homes:
    """Learns how hot prefixes are; tells the two homes of a request, which depend on nothing else.

    A key has at least `key_blocks` blocks of `block_tokens` tokens, made of whole blocks of the request.
    """

    __slots__ = (
        "_heat",
        "_key_blocks",
        "_models",
        "_present",
        "_seed",
        "_tokens",
        "_virtual_nodes",
        "_window",
    )

    def __init__(
        self, *, key_blocks: int, block_tokens: int, window: int, virtual_nodes: int, seed: int
    ) -> None:
        settings = {
            "key_blocks": key_blocks,
            "block_tokens": block_tokens,
            "window": window,
            "virtual_nodes": virtual_nodes,
        }
        for name, value in settings.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self._key_blocks, self._tokens, self._window = key_blocks, block_tokens, window
        self._virtual_nodes, self._seed = virtual_nodes, seed
        self._models: dict[str, tuple[str, ...]] = {}
        self._present: set[str] = set()
        self._heat: dict[str, Heat] = {}

    def note(self, fact: Event | Sent) -> None:
        """Count what arrives, for models that somebody answers for."""
        if isinstance(fact, Arrived):
            request = fact.request
            count = sum(request.model in self._models[one] for one in self._present)
            if count and request.blocks:
                heat = self._heat.get(request.model)
                if heat is None:
                    heat = self._heat[request.model] = Heat(self._window)
                heat.add(self._prefixes(request), count)
        elif isinstance(fact, Reported):
            self._count(fact)

    def _count(self, fact: Reported) -> None:
        """Note who is there; how many they are decides what is hot, not where anybody lives."""
        if fact.spec is not None:
            self._models[fact.replica] = fact.spec.models if fact.spec.role in ANSWERING else ()
        if fact.phase == "gone":
            self._present.discard(fact.replica)
        else:
            self._present.add(fact.replica)

    def key(self, request: Request) -> object:
        """Return what names the prompt's beginning; a prompt without blocks is like no other."""
        prefixes = self._prefixes(request)
        if not prefixes:
            return request.id
        heat = self._heat.get(request.model)
        length = min(self._key_blocks, len(prefixes))
        while heat and length < len(prefixes) and prefixes[length - 1] in heat.hot:
            length += 1
        key = prefixes[length - 1]
        return key if request.adapter is None else f"{key}/{request.adapter}"

    def pair(
        self, request: Request, ids: tuple[str, ...], able: Mapping[str, ReplicaView]
    ) -> tuple[ReplicaView, ...]:
        """Return the request's homes among the able ones of these ids: two, or one if no other is able.

        An owner that is not able is passed over, clockwise, and so is the first home on the second ring.
        """
        key, nodes, seed = self.key(request), self._virtual_nodes, 2 * self._seed
        walk = ring_of(ids, nodes, seed).walk(key)
        first = next(able[one] for one in walk if one in able)
        if len(able) == 1:
            return (first,)
        walk = ring_of(ids, nodes, seed + 1).walk(key)
        return first, next(able[one] for one in walk if one in able and one != first.id)

    def _prefixes(self, request: Request) -> tuple[int, ...]:
        """Return the names of the prompt's prefixes of 1, 2, ... blocks of the key's size."""
        blocks, each = request.blocks, max(1, round(self._tokens / request.block_tokens))
        if not blocks:
            return ()
        return blocks[each - 1 : each * MOST_BLOCKS : each] or blocks[-1:]


class Heat:
    """Counts prefixes among the latest requests; those that had too many of them are `hot`."""

    __slots__ = ("_counts", "_latest", "_window", "hot")

    def __init__(self, window: int) -> None:
        self.hot: set[int] = set()
        self._window = window
        self._latest: deque[tuple[int, ...]] = deque()
        self._counts: dict[int, int] = {}

    def add(self, prefixes: tuple[int, ...], replicas: int) -> None:
        """Count a request, and forget the oldest one if there are too many."""
        counts, hot = self._counts, self.hot
        self._latest.append(prefixes)
        much = 2 * self._window / replicas
        for prefix in prefixes:
            count = counts[prefix] = counts.get(prefix, 0) + 1
            if count > much:
                hot.add(prefix)
        if len(self._latest) > self._window:
            self._forget(self._latest.popleft(), self._window / replicas)

    def _forget(self, prefixes: tuple[int, ...], little: float) -> None:
        counts, hot = self._counts, self.hot
        for prefix in prefixes:
            count = counts[prefix] = counts[prefix] - 1
            if count < little:
                hot.discard(prefix)
                if not count:
                    del counts[prefix]

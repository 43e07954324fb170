"""A ring of replicas: a key belongs to whoever comes next clockwise, so membership changes move few keys.

Source: consistent hashing (Karger et al., STOC 1997), with virtual nodes as in Chord and Dynamo.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import shake_128
from struct import unpack

from millrace.core.draw import draw


class Ring:
    """Where keys live: who owns one, and who comes after that.

    Each id has `virtual_nodes` places on the ring, which belong to it and the `seed` alone: another id takes
    only the keys that it then owns, and one that leaves gives only its own away. Rings of different seeds
    are independent of each other. The order of ids does not matter. Raises ValueError for a ring without
    ids or without virtual nodes.
    """

    __slots__ = ("_owners", "_places", "_seed", "ids")

    def __init__(self, ids: Iterable[str], virtual_nodes: int = 150, seed: int = 0) -> None:
        self.ids = tuple(sorted(set(ids)))
        if not self.ids:
            raise ValueError("ids are none; a ring needs at least one")
        if virtual_nodes < 1:
            raise ValueError(f"virtual_nodes is {virtual_nodes}; at least 1 place must be each id's")
        self._seed = seed
        # Of two at one place the first by name has it, whoever came earlier.
        taken = {place: one for one in reversed(self.ids) for place in _places(one, virtual_nodes, seed)}
        self._places = sorted(taken)
        self._owners = [taken[place] for place in self._places]

    def owner(self, key: object) -> str:
        """Return who owns the key (its text): the next place clockwise is its."""
        return self._owners[self._start(key)]

    def walk(self, key: object) -> Iterator[str]:
        """Yield every id once, clockwise from the key: its owner, who would own it without that one, ..."""
        at, owners = self._start(key) - len(self._owners), self._owners
        seen: set[str] = set()
        while len(seen) < len(self.ids):
            owner = owners[at]
            if owner not in seen:
                seen.add(owner)
                yield owner
            at += 1

    def _start(self, key: object) -> int:
        return bisect(self._places, draw(key, self._seed)) % len(self._places)


@lru_cache(maxsize=16)
def ring_of(ids: tuple[str, ...], virtual_nodes: int = 150, seed: int = 0) -> Ring:
    """Return the ring of these ids, made once as long as the same ones are asked for.

    Leave out of them nobody who is only skipped for a while (a loaded one, one to avoid): take the first on
    the walk who will do, which costs microseconds, where another ring costs milliseconds.
    """
    return Ring(ids, virtual_nodes, seed)


@lru_cache(maxsize=1024)
def _places(id: str, virtual_nodes: int, seed: int) -> tuple[int, ...]:
    spread = shake_128(f"{id}\x1f{seed}".encode()).digest(8 * virtual_nodes)
    return unpack(f">{virtual_nodes}Q", spread)

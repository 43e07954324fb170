"""Memory in tiers: how long it takes to move bytes between them, and which models of many are near at hand.

SambaNova SN40L (arXiv:2405.07518) keeps 150 experts in DDR and brings the one that is asked for to HBM.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct


class Tier(Struct, frozen=True, kw_only=True):
    """A kind of memory: what it holds, and how fast its bytes come to the tier that computes.

    `latency_s` passes before the first byte; `source` says where the figures come from.
    """

    name: str
    capacity_bytes: float
    bytes_per_s: float
    latency_s: float = 0.0
    source: str

    def move_s(self, size_bytes: float) -> float:
        """Seconds to bring so many bytes to where they are used; nothing takes none."""
        return self.latency_s + size_bytes / self.bytes_per_s if size_bytes else 0.0


def striped(tiers: Sequence[Tier]) -> Tier:
    """Return one tier that uses equal ones side by side, each for an equal part of every tensor.

    Raises ValueError for none, and for tiers that differ in size or speed.
    """
    if not tiers:
        raise ValueError("tiers is empty; pass at least one")
    first = tiers[0]
    if any((t.capacity_bytes, t.bytes_per_s) != (first.capacity_bytes, first.bytes_per_s) for t in tiers):
        raise ValueError("tiers differ in capacity or speed; stripe over equal ones")
    return Tier(
        name=f"{len(tiers)}x {first.name}",
        capacity_bytes=first.capacity_bytes * len(tiers),
        bytes_per_s=first.bytes_per_s * len(tiers),
        latency_s=max(tier.latency_s for tier in tiers),
        source=first.source,
    )


class Residency:
    """Models that share the near tier of a node; the one used longest ago makes room."""

    def __init__(self, near_bytes: float, home: Tier) -> None:
        self.home = home
        self.moved_s = 0.0
        self.misses = self.requests = 0
        self._free_bytes = near_bytes
        self._sizes: OrderedDict[str, float] = OrderedDict()

    def use(self, name: str, size_bytes: float) -> float:
        """Make a model resident; return the seconds until it is, 0 if it was.

        Raises ValueError for a model that is larger than the near tier.
        """
        self.requests += 1
        if name in self._sizes:
            self._sizes.move_to_end(name)
            return 0.0
        while self._free_bytes < size_bytes and self._sizes:
            self._free_bytes += self._sizes.popitem(last=False)[1]
        if self._free_bytes < size_bytes:
            raise ValueError(
                f"{name} takes {size_bytes:.3g} bytes and the near tier has {self._free_bytes:.3g}; split it"
            )
        self._free_bytes -= size_bytes
        self._sizes[name] = size_bytes
        seconds = self.home.move_s(size_bytes)
        self.misses += 1
        self.moved_s += seconds
        return seconds

    @property
    def miss_ratio(self) -> float:
        """Share of uses that had to wait; 0 before the first."""
        return self.misses / self.requests if self.requests else 0.0

"""Where to keep the tensors of offloaded training: in local memory, or in memory behind an expansion link.

The processor's optimizer step waits for every byte it touches; transfers to the accelerator are hidden behind
computation as far as that lasts (Liaw and Chen: CXL-attached memory for fine-tuning, arXiv:2507.03305).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from msgspec import Struct

from millrace.core.memory_tiers import Tier

Shares = tuple[float, ...]
"""For each tensor, the share of it that is kept in local memory."""


class Tensor(Struct, frozen=True, kw_only=True):
    """A kind of state: its size, and what a training step reads and writes of it.

    `updated_bytes` by the optimizer on the processor, `sent_bytes` between host and accelerator.
    """

    name: str
    size_bytes: float
    updated_bytes: float = 0.0
    sent_bytes: float = 0.0


class Host(Struct, frozen=True, kw_only=True):
    """Local memory, expansion memory, the accelerator's link, and what it computes meanwhile in a step.

    The bandwidth of each memory is shared by all that is read from it at a time; the two work side by side.
    """

    local: Tier
    far: Tier
    link_bytes_per_s: float
    compute_s: float

    def step_s(self, tensors: Sequence[Tensor], shares: Shares) -> float:
        """Seconds of a training step with these shares of the tensors in local memory."""
        sent_s = sum(tensor.sent_bytes for tensor in tensors) / self.link_bytes_per_s
        sent_s = max(sent_s, self._both_s([tensor.sent_bytes for tensor in tensors], shares))
        return max(self.compute_s, sent_s) + self._both_s([t.updated_bytes for t in tensors], shares)

    def fits(self, tensors: Sequence[Tensor], shares: Shares) -> bool:
        """Whether neither memory has to hold more than it can."""
        sizes = [tensor.size_bytes for tensor in tensors]
        local_bytes = sum(size * share for size, share in zip(sizes, shares, strict=True))
        slack = 1 + 1e-9
        return (
            local_bytes <= self.local.capacity_bytes * slack
            and sum(sizes) - local_bytes <= self.far.capacity_bytes * slack
        )

    def _both_s(self, moved_bytes: Sequence[float], shares: Shares) -> float:
        near = sum(moved * share for moved, share in zip(moved_bytes, shares, strict=True))
        return max(near / self.local.bytes_per_s, (sum(moved_bytes) - near) / self.far.bytes_per_s)


def interleaved(tensors: Sequence[Tensor], host: Host) -> Shares:
    """Deal out pages in turn, whatever they hold, until local memory is full, as an operating system does."""
    total = sum(tensor.size_bytes for tensor in tensors)
    return (min(0.5, host.local.capacity_bytes / total),) * len(tensors)


def placed(tensors: Sequence[Tensor], host: Host) -> Shares:
    """Give local memory to the tensors that the optimizer touches most per byte, then better it by exchanges.

    Of all lengths of that list the fastest that fits is taken, for two memories side by side are faster than
    one alone; the last tensor of the list may be split. Then single tensors move and pairs change places as
    long as a step gets faster. Raises ValueError if the tensors fit in no way, naming what is short.
    """
    possible = [shares for shares in _filled(tensors, host) if host.fits(tensors, shares)]
    if not possible:
        total = sum(tensor.size_bytes for tensor in tensors)
        room = host.local.capacity_bytes + host.far.capacity_bytes
        raise ValueError(f"the tensors take {total:.3g} bytes and both memories have {room:.3g}; add some")
    found = min(possible, key=lambda shares: host.step_s(tensors, shares))
    while True:
        near = [shares for shares in _exchanged(found) if host.fits(tensors, shares)]
        better = min(near, key=lambda shares: host.step_s(tensors, shares), default=found)
        if host.step_s(tensors, better) >= host.step_s(tensors, found) * (1 - 1e-9):
            return found
        found = better


def best_whole(tensors: Sequence[Tensor], host: Host) -> Shares | None:
    """Try every way to keep whole tensors in either memory; None if none fits. For up to about 16 of them."""
    every = (shares for shares in product((0.0, 1.0), repeat=len(tensors)) if host.fits(tensors, shares))
    return min(every, key=lambda shares: host.step_s(tensors, shares), default=None)


def _filled(tensors: Sequence[Tensor], host: Host) -> Iterator[Shares]:
    """Yield the placements on the way from nothing in local memory to as much as fits."""
    density = [tensor.updated_bytes / tensor.size_bytes for tensor in tensors]
    shares = [0.0] * len(tensors)
    free_bytes = host.local.capacity_bytes
    yield tuple(shares)
    for index in sorted(range(len(tensors)), key=lambda i: (-density[i], i)):
        shares[index] = min(1.0, free_bytes / tensors[index].size_bytes)
        free_bytes -= shares[index] * tensors[index].size_bytes
        yield tuple(shares)


def _exchanged(shares: Shares) -> Iterator[Shares]:
    """Yield the placements in which one tensor has moved, or two have changed places."""
    for i, share in enumerate(shares):
        for moved in {0.0, 1.0} - {share}:
            yield (*shares[:i], moved, *shares[i + 1 :])
        for j in range(i + 1, len(shares)):
            if shares[j] != share:
                yield (*shares[:i], shares[j], *shares[i + 1 : j], share, *shares[j + 1 :])

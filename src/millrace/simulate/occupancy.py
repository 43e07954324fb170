"""How full a fleet was over virtual time: each replica's shares of time, sequences and KV cache in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from millrace.core.replica import Limits
from millrace.simulate.engine import ServerSpec
from millrace.simulate.lanes import Stretch

MOST_BINS = 64
_DIGITS = 4
_FIRST_BIN_S = 2.0**-10


class Shares(Struct, frozen=True, kw_only=True):
    """What one replica had in use in each bin: of the time, of the sequences that may run, and of the cache.

    All are means over the bin, from 0 to 1; while no step runs, or the replica is gone, they count as 0.
    """

    busy: list[float]
    running: list[float]
    kv: list[float]


class Occupancy(Struct, frozen=True, kw_only=True):
    """Every replica's shares in bins of `bin_s` seconds; the last one ends with the run, at `end_s`."""

    bin_s: float
    end_s: float
    replicas: dict[str, Shares]


class Occupied:
    """Adds up runs of steps in at most MOST_BINS bins, which grow twice as long when they are used up."""

    def __init__(self, fleet: Sequence[ServerSpec]) -> None:
        self._sums = {server.id: _Sums(server) for server in fleet}
        self._bin_s = _FIRST_BIN_S

    def tell(self, stretch: Stretch) -> None:
        """Add a run of like steps: the cache that it has on average counts for all of it."""
        while stretch.end_s > MOST_BINS * self._bin_s:
            self._bin_s *= 2
            for sums in self._sums.values():
                sums.fold()
        sums = self._sums[stretch.replica]
        running = stretch.running / sums.sequences
        kv = 1 - stretch.kv_free_tokens / sums.kv_tokens
        for place, seconds in self._parts(stretch.start_s, stretch.end_s):
            sums.busy_s[place] += seconds
            sums.running_s[place] += seconds * running
            sums.kv_s[place] += seconds * kv

    def occupancy(self, end_s: float) -> Occupancy:
        """Return the shares of a run that ended at `end_s`."""
        lengths_s = [seconds for _, seconds in self._parts(0.0, end_s)]
        replicas = {name: sums.shares(lengths_s) for name, sums in self._sums.items()}
        return Occupancy(bin_s=self._bin_s, end_s=end_s, replicas=replicas)

    def _parts(self, start_s: float, end_s: float) -> Iterator[tuple[int, float]]:
        """Yield the bins that a time touches, and how long it is in each."""
        first = min(int(start_s / self._bin_s), MOST_BINS - 1)
        for place in range(first, MOST_BINS):
            low_s, high_s = place * self._bin_s, (place + 1) * self._bin_s
            if end_s <= low_s:
                return
            yield place, min(high_s, end_s) - max(low_s, start_s)


class _Sums:
    """Seconds in use of one replica, bin by bin, each kind weighted with its share."""

    def __init__(self, server: ServerSpec) -> None:
        limits = server.spec.limits or Limits()
        self.sequences = limits.sequences * server.ranks
        self.kv_tokens = limits.kv_blocks * limits.block_tokens * server.ranks
        self.busy_s, self.running_s, self.kv_s = ([0.0] * MOST_BINS for _ in range(3))

    def fold(self) -> None:
        """Let every bin take in its neighbour, and make room for as many again."""
        for sums in (self.busy_s, self.running_s, self.kv_s):
            pairs = zip(sums[::2], sums[1::2], strict=True)
            sums[:] = [a + b for a, b in pairs] + [0.0] * (MOST_BINS // 2)

    def shares(self, lengths_s: Sequence[float]) -> Shares:
        """Divide by the lengths of the bins there are."""

        def over(sums: Sequence[float]) -> list[float]:
            # A step may outlast the last request: what it takes beyond is not of this run.
            parts = zip(sums, lengths_s, strict=False)
            return [round(min(1.0, used_s / length_s), _DIGITS) for used_s, length_s in parts]

        return Shares(busy=over(self.busy_s), running=over(self.running_s), kv=over(self.kv_s))

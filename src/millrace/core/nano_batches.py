"""Searches a schedule that keeps computing, reading and sending busy at once: into which nano-batches to cut.

Source: the automatic search of NanoFlow (Zhu et al., arXiv:2408.12757), which also searches how to share a
device's units among the kernels; here kernels that run beside each other are slowed alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from millrace.core.device import DeviceSpec
from millrace.core.layer_work import Mix, layer_operations
from millrace.core.model import ModelSpec
from millrace.core.overlap import Operation, Run, bound_s, schedule, sequential_s

PARTS = (2, 3, 4)
TILES = 16  # into which a step is cut at most; nano-batches are of whole ones
_LAYERS = 4  # that a candidate is tried with


class Schedule(Struct, frozen=True, kw_only=True):
    """The nano-batches found, as shares of a step; their operations in some layers, and when each runs.

    `sequential_s` is what the step takes whole, one operation after the other, and `bound_s` what its busiest
    resource takes of that: no schedule is quicker.
    """

    shares: tuple[float, ...]
    operations: list[Operation]
    runs: list[Run]
    sequential_s: float
    bound_s: float

    @property
    def seconds(self) -> float:
        """When the last operation ends."""
        return max(run.end_s for run in self.runs)

    @property
    def gain(self) -> float:
        """How many times as fast that is as one operation after the other."""
        return self.sequential_s / self.seconds


def search(
    model: ModelSpec,
    device: DeviceSpec,
    devices: int,
    mix: Mix,
    *,
    layers: int,
    together: float = 1.0,
    parts: Sequence[int] = PARTS,
) -> Schedule:
    """Search nano-batches and the order in which resources take them, for a step in its steady state.

    From equal ones of each number, sizes change by a tile as long as that makes the step shorter. While
    operations run on several resources at once, each proceeds at `together` of its speed alone. Raises
    ValueError as `layer_operations` does.
    """

    def operations(tiles: Sequence[int], by_operation: bool, layers: int) -> list[Operation]:
        shares = [tile / TILES for tile in tiles]
        return layer_operations(
            model, device, devices, mix, layers=layers, shares=shares, by_operation=by_operation
        )

    def seconds(tiles: Sequence[int], by_operation: bool) -> float:
        tried = schedule(operations(tiles, by_operation, _LAYERS), together=together)
        return max(run.end_s for run in tried)

    found: list[tuple[float, tuple[int, ...], bool]] = []
    for by_operation in (False, True):
        for count in parts:
            tiles = _equal(count)
            best_s = seconds(tiles, by_operation)
            while True:
                next_s, nearby = min((seconds(near, by_operation), near) for near in _near(tiles))
                if next_s >= best_s:
                    break
                best_s, tiles = next_s, nearby
            found.append((best_s, tiles, by_operation))
    _, tiles, by_operation = min(found)
    whole, chosen = operations([TILES], False, layers), operations(tiles, by_operation, layers)
    return Schedule(
        shares=tuple(tile / TILES for tile in tiles),
        operations=chosen,
        runs=schedule(chosen, together=together),
        sequential_s=sequential_s(whole),
        bound_s=bound_s(whole),
    )


def _equal(count: int) -> tuple[int, ...]:
    return tuple(TILES // count + (place < TILES % count) for place in range(count))


def _near(tiles: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all sizes that differ by a tile, from one nano-batch to another."""
    for source, has in enumerate(tiles):
        for target in range(len(tiles)):
            if target != source and has > 1:
                yield tuple(tile - (place == source) + (place == target) for place, tile in enumerate(tiles))

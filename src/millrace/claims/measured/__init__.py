"""Measurements of hardware that is not here, made ready by `scripts/ship_collectives.py`.

Vidur's times of NCCL collectives on DGX A100 and DGX H100 machines (microsoft/vidur, MIT).
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

from msgspec import Struct

from millrace.core.cost import Collective, fit_collective

_COLLECTIVES = Path(__file__).parent / "collectives.csv.gz"
SOURCE = "Vidur's measurements with NCCL (microsoft/vidur, MIT)"


class Series(Struct, frozen=True, kw_only=True):
    """One collective over so many devices, `devices_each` in a machine: median seconds by bytes."""

    machine: str
    collective: str
    devices: int
    devices_each: int
    seconds: dict[int, float]

    @property
    def inside(self) -> bool:
        """Whether all devices are in one machine."""
        return self.devices == self.devices_each

    @property
    def single_rail(self) -> bool:
        """Whether at most one device of a machine sends to another machine."""
        return self.inside or self.devices_each == 1

    def __str__(self) -> str:
        return f"{self.collective} over {self.devices} ({self.devices_each} each) of {self.machine}"

    def fitted(self, sizes: list[int] | None = None) -> Collective:
        """Fit a start and a rate to some of the sizes, by default all."""
        chosen = self.seconds if sizes is None else {size: self.seconds[size] for size in sizes}
        return fit_collective(chosen, self.devices, SOURCE)


def collectives() -> list[Series]:
    """Return all that was measured."""
    found: dict[tuple[str, str, int, int], dict[int, float]] = defaultdict(dict)
    with gzip.open(_COLLECTIVES, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            key = row["machine"], row["collective"], int(row["devices"]), int(row["devices_each"])
            found[key][int(row["bytes"])] = float(row["median_us"]) / 1e6
    return [
        Series(machine=machine, collective=name, devices=devices, devices_each=each, seconds=seconds)
        for (machine, name, devices, each), seconds in found.items()
    ]


def all_reduce(machine: str, devices: int) -> Series:
    """Return the all-reduces inside a machine. Raises ValueError if none were measured."""
    for series in collectives():
        found = series.machine, series.collective, series.devices
        if series.inside and found == (machine, "all_reduce", devices):
            return series
    raise ValueError(f"no all-reduce over {devices} devices of one {machine} was measured")

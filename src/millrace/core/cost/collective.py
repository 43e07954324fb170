"""What it takes to add up or gather what several devices computed: a start, and so much for each byte."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from millrace.core.cost.efficiency import Efficiency
from millrace.core.cost.least_squares import nearest
from millrace.core.device import DeviceSpec


class Collective(Struct, frozen=True, kw_only=True):
    """An all-reduce over `devices` devices takes `start_s`, and `per_byte_s` for a byte of the result.

    Gathering moves half of what an all-reduce does, and so does scattering the sums; `gather` is the share of
    an all-reduce's time for a byte that they take.
    """

    devices: int
    start_s: float
    per_byte_s: float
    source: str
    gather: float = 0.5

    @property
    def gather_byte_s(self) -> float:
        """Seconds for a byte of what is gathered."""
        return self.per_byte_s * self.gather

    def all_reduce_s(self, size_bytes: float) -> float:
        """Seconds of an all-reduce of a message of this size."""
        return self.start_s + size_bytes * self.per_byte_s

    def gather_s(self, size_bytes: float) -> float:
        """Seconds of giving every device the parts of all, or of leaving each its part of the sum."""
        return self.start_s + size_bytes * self.gather_byte_s


def expected(device: DeviceSpec, efficiency: Efficiency, devices: int) -> Collective:
    """Return what the data sheet's link makes of a ring of such devices."""
    if device.link_bytes_per_s is None:
        raise ValueError(f"a {device.name} has no link to another, so {devices} of them cannot work together")
    sent = 2 * (devices - 1) / devices
    start_s, link = efficiency.all_reduce_s, efficiency.link
    for count, wider_start_s, wider_link in efficiency.wider:
        if count <= devices:
            start_s, link = wider_start_s, wider_link
    return Collective(
        devices=devices,
        start_s=start_s,
        per_byte_s=sent / (device.link_bytes_per_s * link),
        source=f"{link:g} of the data sheet's link, {start_s * 1e6:g} us to start",
        gather=efficiency.gather,
    )


def fit_collective(seconds: Mapping[int, float], devices: int, source: str) -> Collective:
    """Fit to all-reduces timed over `devices` devices, by bytes; small messages count as much as large ones.

    Raises ValueError for fewer than two sizes.
    """
    if len(seconds) < 2:
        raise ValueError(f"an all-reduce over {devices} devices was timed at {len(seconds)} sizes; time two")
    rows = [[1.0, float(size)] for size in seconds]
    start_s, per_byte_s = nearest(rows, list(seconds.values()))
    return Collective(devices=devices, start_s=start_s, per_byte_s=per_byte_s, source=source)

"""A device that runs a model: what its data sheet promises, and what it costs to have and to run."""

from __future__ import annotations

from msgspec import Struct


class DeviceSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One accelerator, or one CPU, in the vendor's figures; unknown is None, never 0.

    `flops` are dense bf16 operations per second (fp32 on a CPU), `fp8_flops` the same with 8-bit weights
    where the device can. `memory_bytes` is what the driver reports, `link_bytes_per_s` the bandwidth to its
    peers in one direction. `idle_w` is drawn with a model loaded and nothing to do. `price_per_h` is in
    US dollars for one device; prices move, so give your own where it matters.
    """

    name: str
    flops: float
    memory_bytes: int
    memory_bytes_per_s: float
    source: str
    fp8_flops: float | None = None
    link_bytes_per_s: float | None = None
    tdp_w: float | None = None
    idle_w: float | None = None
    price_per_h: float | None = None
    price_source: str | None = None

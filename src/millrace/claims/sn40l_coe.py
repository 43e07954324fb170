"""Experts kept in a node's own DDR are switched 15 to 31 times as fast, on up to 19 times fewer machines.

150 experts of Llama-2-7B's size are asked for by Zipf's law (exponent 1, 20,000 requests; both assumed). Each
node keeps what was used last in its fast memory and fetches the others: the SN40L node from its DDR, DGX
nodes from host memory over PCIe. The switch itself is bytes over bandwidth plus latency, so its ratio is that
of the assumed links, 1 TB/s for the eight sockets together against 64 and 32 GB/s; the simulated part is how
often it happens, and what a request waits on average. The number of machines is that of DGX H100 whose fast
memory holds as many experts as one node's 12 TB of DDR. No such chip is here; execution is not priced.

Source: Prabhakar et al., SambaNova SN40L: Scaling the AI Memory Wall with Dataflow and Composition of
Experts, arXiv:2405.07518.
"""

from __future__ import annotations

from itertools import count
from math import ceil

from msgspec import Struct

from millrace.claims import Check, Kind
from millrace.core.catalogue import device, model
from millrace.core.chance import Chance, zipf
from millrace.core.memory_tiers import Residency, Tier

KIND: Kind = "simulated"
EXPERTS = 150
EXPONENT = 1.0
REQUESTS = 20_000
TARGET_MISSES = 0.05


class Node(Struct, frozen=True, kw_only=True):
    """A machine: the fast memory that models run from, and where the others are kept."""

    near_bytes: float
    home: Tier


SN40L = Node(
    near_bytes=8 * 64e9,
    home=Tier(
        name="DDR",
        capacity_bytes=8 * 1.5e12,
        bytes_per_s=1e12,
        latency_s=10e-6,
        source="64 GB of HBM and 1.5 TB of DDR a socket, eight sockets; 1 TB/s for all is assumed",
    ),
)
DGX_H100 = Node(
    near_bytes=8 * device("h100").memory_bytes,
    home=Tier(
        name="host over PCIe 5",
        capacity_bytes=2e12,
        bytes_per_s=64e9,
        latency_s=10e-6,
        source="DGX H100: 2 TB of host memory; PCIe 5.0 x16, nominal",
    ),
)
DGX_A100 = Node(
    near_bytes=8 * device("a100-80g").memory_bytes,
    home=Tier(
        name="host over PCIe 4",
        capacity_bytes=2e12,
        bytes_per_s=32e9,
        latency_s=10e-6,
        source="DGX A100: 2 TB of host memory; PCIe 4.0 x16, nominal",
    ),
)


def measure() -> list[Check]:
    """Let three kinds of node serve the same requests, and count machines."""
    size_bytes = model("llama-2-7b").weight_bytes
    own, h100, a100 = (_served(node.near_bytes, node.home) for node in (SN40L, DGX_H100, DGX_A100))
    switch_s = SN40L.home.move_s(size_bytes)
    kept = int(SN40L.home.capacity_bytes // size_bytes)
    return [
        Check(
            what="switching, against DGX H100",
            value=DGX_H100.home.move_s(size_bytes) / switch_s,
            unit="x",
            at_least=10,
        ),
        Check(
            what="switching, against DGX A100", value=DGX_A100.home.move_s(size_bytes) / switch_s, unit="x"
        ),
        Check(what="requests that switch, SN40L", value=100 * own.miss_ratio, unit="%"),
        Check(what="requests that switch, DGX H100", value=100 * h100.miss_ratio, unit="%"),
        Check(what="mean wait, against DGX H100", value=h100.moved_s / own.moved_s, unit="x", at_least=5),
        Check(what="mean wait, against DGX A100", value=a100.moved_s / own.moved_s, unit="x", at_least=10),
        Check(
            what="DGX H100 that hold as many experts in fast memory",
            value=ceil(kept / (DGX_H100.near_bytes // size_bytes)),
            at_least=10,
        ),
        Check(what=f"DGX H100 for {TARGET_MISSES:.0%} that switch", value=_nodes_needed()),
    ]


def _served(near_bytes: float, home: Tier) -> Residency:
    size_bytes = model("llama-2-7b").weight_bytes
    residency, chance, popularity = Residency(near_bytes, home), Chance("sn40l-coe"), zipf(EXPERTS, EXPONENT)
    for _ in range(REQUESTS):
        residency.use(str(popularity.pick(chance)), size_bytes)
    return residency


def _nodes_needed() -> int:
    """Machines that share the experts so that few enough requests switch."""
    return next(
        n for n in count(1) if _served(n * DGX_H100.near_bytes, DGX_H100.home).miss_ratio <= TARGET_MISSES
    )

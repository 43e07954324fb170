"""What lies between a gateway and its engines, and what happens to them."""

from __future__ import annotations

from msgspec import Struct

from millrace.core.memory_tiers import Tier
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link


class Surroundings(Struct, frozen=True, kw_only=True):
    """What lies between a gateway and its engines.

    `to_engine_s` and `from_engine_s` are what the way costs in each direction. Engines that share a
    machine slow each other down: the k-th of `slowdowns` is by how much a step takes longer that begins
    while k of them are busy, itself included, and the last holds for all larger k (empty: each has a
    device of its own). `scrape_s` is the period of load reports: what a replica says of itself, its phase
    too, is heard at the next one, but failures are noticed at once by who they hit (None: no load is ever
    reported, phases at once). `faults` are in the order of their times. Prefilled prompts
    go from replica to replica over `link`s. All replicas share the cached prompts in the `pool`, if there is
    one; joules are not metered then. With `failover` an answer whose replica is killed goes on at
    another one, which computes the prompt and the answer so far again.
    """

    to_engine_s: float = 0.0
    from_engine_s: float = 0.0
    slowdowns: tuple[float, ...] = ()
    scrape_s: float | None = None
    faults: tuple[Fault, ...] = ()
    link: Link = Link()
    pool: Tier | None = None
    failover: bool = False

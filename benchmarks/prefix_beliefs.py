"""What a fleet gains by believing in no more than its caches reach back: capacity, and the tail above it.

    python -m benchmarks.prefix_beliefs [--policies NAMES] [--replicas 4,16] [--traces NAMES] [--each 250]
                                        [--jobs 2] [--json]

The cells are those of `benchmarks/routing.py`. Each is measured with whatever was sent being believed in for
as long as there is memory (`sent`), with what answers show (`answers`), and with what specs say of cache
sizes as well (`both`, as it is): the capacity, and what TTFT is at the first one's capacity and at 1.2 times
that. All figures are simulated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from typing import Any

from msgspec.structs import replace

from benchmarks.routing import GOAL, WORKLOADS, Cell, laid_out, oracle_rps, tell
from millrace.control import Controller, ControlSettings
from millrace.control.flight import Flight
from millrace.control.knowledge import Prefixes
from millrace.core.event import Finished
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Slo
from millrace.core.stats import percentile
from millrace.policies import load
from millrace.simulate import Job
from millrace.simulate.capacity import Probe, attempt, find_capacity
from millrace.simulate.run import simulate

LOADS = (1.0, 1.2)


class Answers(Prefixes):
    """Knows of no cache how large it is."""

    def expect(self, replica: str, spec: ReplicaSpec) -> None:
        """Do not listen."""


class Trusting(Answers):
    """Learns nothing either."""

    def learn(self, flight: Flight, event: Finished) -> None:
        """Do not listen."""


WAYS: dict[str, type[Prefixes]] = {"sent": Trusting, "answers": Answers, "both": Prefixes}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="millrace,dualmap,prefix_affinity,sglang_cache_aware")
    parser.add_argument("--replicas", default="4,16", help="sizes of fleets")
    parser.add_argument("--traces", default=",".join(WORKLOADS), help="of the shipped ones")
    parser.add_argument("--each", type=int, default=250, help="requests for each replica")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    cells = [
        Cell(WORKLOADS[trace], int(size), slo_s, args.each)
        for trace in args.traces.split(",")
        for size in args.replicas.split(",")
        for slo_s in WORKLOADS[trace].slos_s
    ]
    tasks = list(product(cells, args.policies.split(",")))
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = [row for found in pool.map(compare, *zip(*tasks, strict=True)) for row in found]
    print(json.dumps(rows, indent=1) if args.json else "\n".join(map(_line, rows)))


def compare(cell: Cell, policy: str) -> list[dict[str, Any]]:
    """Return what is found of one policy in one cell, for each way to believe."""
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        found = find_capacity(partial(probe, cell, policy, way), 0.5 * oracle_rps(cell))
        first_rps = rows[0]["capacity_rps"] if rows else found.capacity_rps
        rows.append({"cell": cell.name, "policy": policy, "way": way, "capacity_rps": found.capacity_rps})
        for load_factor in LOADS:
            rows[-1] |= above(cell, policy, way, load_factor, load_factor * first_rps)
        tell(_line(rows[-1]))
    return rows


def probe(cell: Cell, policy: str, way: str, rate_rps: float) -> Probe:
    """Play the trace at this rate until it is clear that too many are late."""
    fleet, jobs = laid_out(cell)
    return attempt(
        _sped(jobs, rate_rps),
        fleet,
        _controller(policy, way),
        load("batching", "split_fuse"),
        slo=Slo(ttft_s=cell.slo_s),
        goal=GOAL,
    )


def above(cell: Cell, policy: str, way: str, factor: float, rate_rps: float) -> dict[str, float]:
    """Return the share that is in time at this rate, and the 99th percentile of seconds to a first token."""
    fleet, jobs = laid_out(cell)
    batching, slo = load("batching", "split_fuse"), Slo(ttft_s=cell.slo_s)
    found = simulate(_sped(jobs, rate_rps), fleet, _controller(policy, way), batching, slo=slo)
    waited_s = [one.ttft_s for one in found.outcomes if one.ttft_s is not None]
    in_time = found.measured.slo_attainment
    return {f"in time at {factor:g}x": in_time, f"p99_s at {factor:g}x": percentile(waited_s, 99)}


def _controller(policy: str, way: str) -> Controller:
    settings = ControlSettings(prefix_knowledge="answers")
    made = Controller(load("routing", policy), load("queueing", "fcfs"), settings)
    made.state.prefixes = WAYS[way](made.settings)
    return made


def _sped(jobs: Sequence[Job], rate_rps: float) -> list[Job]:
    faster = len(jobs) / jobs[-1].t_s / rate_rps
    return [replace(job, t_s=job.t_s * faster) for job in jobs]


def _line(row: dict[str, Any]) -> str:
    rest = "  ".join(f"{name} {value:7.3f}" for name, value in row.items() if " at " in name)
    named = f"{row['cell']:52} {row['policy']:20} {row['way']:8}"
    return f"{named} {row['capacity_rps']:8.3f} requests/s  {rest}"


if __name__ == "__main__":
    main()

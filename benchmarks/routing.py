"""How many requests a second a fleet takes under every routing policy, and how many it could at most.

    python benchmarks/routing.py [--policies NAMES] [--replicas 4,8,16,32] [--traces NAMES] [--each N]
                                 [--jobs N] [--json] [--write]

The capacity is the highest rate at which 95 % of the requests have their first token in time: both shipped
traces, sped up or slowed down as a whole, on fleets of several sizes, at two objectives each. All figures are
simulated. The interval is a bootstrap's over blocks of requests (`simulate.capacity`). A larger fleet plays
more of the trace: `--each` requests for each replica.

The oracle is what no policy can be expected to pass: it knows all lengths and what comes, has one cache as
large as those of all replicas together, from which leaves first what is needed again last (Belady), leaves
out the most expensive 5 % of the requests, and wastes nothing: a prompt's token costs what it costs in a full
step, an answer's what it adds to a step of as many as there are seats.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from heapq import heappop, heappush
from itertools import islice
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.cost import StepShape
from millrace.core.fleet_spec import parse_fleet
from millrace.core.replica import Limits
from millrace.core.request import Slo
from millrace.data import open_trace
from millrace.policies import load, names
from millrace.simulate import Job, ServerSpec, jobs_of, servers
from millrace.simulate.capacity import Capacity, Probe, attempt, find_capacity, servable

RESULT = Path(__file__).parent / "results" / "routing.json"
GOAL = 0.95
SIZES = (4, 8, 16, 32)
OWN = ("least_work", "millrace", "prefix_affinity")  # all others are published elsewhere
APART = ("disaggregated", "elasticmm", "xllm_slo_aware")  # for fleets whose replicas differ in their roles


class Workload(NamedTuple):
    """A trace, what serves it, and the objectives for the time to the first token."""

    trace: str
    each: str
    slos_s: tuple[float, ...]


WORKLOADS = {
    "mooncake_conversation": Workload(
        "mooncake_conversation", "h100 llama-3-8b max_model_len=131072 block_size=512", (5.0, 10.0)
    ),
    "azure_conv_2023": Workload("azure_conv_2023", "a100-80g llama-3-8b", (0.5, 2.0)),
}


class Cell(NamedTuple):
    """One fleet under one load with one objective; `requests` are for each replica."""

    workload: Workload
    replicas: int
    slo_s: float
    requests: int

    @property
    def name(self) -> str:
        """How the cell is called in results."""
        return f"{self.workload.trace}, {self.replicas} replicas, TTFT <= {self.slo_s:g} s"


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [name for name in names("routing") if name not in APART]
    parser.add_argument("--policies", default=",".join(every), help="with commas between")
    parser.add_argument("--replicas", default=",".join(map(str, SIZES)), help="sizes of fleets")
    parser.add_argument("--traces", default=",".join(WORKLOADS), help="of the shipped ones")
    parser.add_argument("--each", type=int, default=500, help="requests for each replica")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    cells = [
        Cell(WORKLOADS[trace], int(size), slo_s, args.each)
        for trace in args.traces.split(",")
        for size in args.replicas.split(",")
        for slo_s in WORKLOADS[trace].slos_s
    ]
    found = measure(cells, args.policies.split(","), args.jobs)
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else table(found))


def measure(cells: Sequence[Cell], policies: Sequence[str], jobs: int) -> dict[str, Any]:
    """Return the capacities of all policies in all cells, with the oracle's."""
    tasks = [(cell, policy) for cell in cells for policy in policies]
    found: dict[str, dict[str, Any]] = {
        cell.name: {
            "oracle_rps": round(oracle_rps(cell), 3),
            "policies": {},
        }
        for cell in cells
    }
    with ProcessPoolExecutor(jobs) as pool:
        for (cell, policy), capacity in zip(
            tasks, pool.map(capacity_of, *zip(*tasks, strict=True)), strict=True
        ):
            found[cell.name]["policies"][policy] = {
                "capacity_rps": round(capacity.capacity_rps, 3),
                "low_rps": round(capacity.low_rps, 3),
                "high_rps": round(capacity.high_rps, 3),
            }
            tell(f"{cell.name}: {policy} {capacity.capacity_rps:.2f} requests/s")
    return {
        "cells": found,
        "summary": summary(found),
        "machine": f"{platform.machine()}, CPython {platform.python_version()}",
    }


def capacity_of(cell: Cell, policy: str) -> Capacity:
    """Search the capacity of one policy in one cell."""
    fleet, jobs = laid_out(cell)
    span_s = jobs[-1].t_s
    slo = Slo(ttft_s=cell.slo_s)

    def probe(rate_rps: float) -> Probe:
        faster = len(jobs) / span_s / rate_rps
        sped = [replace(job, t_s=job.t_s * faster) for job in jobs]
        controller = Controller(load("routing", policy), load("queueing", "fcfs"))
        return attempt(sped, fleet, controller, load("batching", "split_fuse"), slo=slo, goal=GOAL)

    return find_capacity(probe, 0.5 * oracle_rps(cell))


def laid_out(cell: Cell) -> tuple[list[ServerSpec], list[Job]]:
    """Return the fleet, and the requests that it can serve at all; the first comes at 0 s."""
    fleet = servers(parse_fleet(f"{cell.replicas}x {cell.workload.each}"))
    count, model = cell.requests * cell.replicas, fleet[0].spec.models[0]
    every = jobs_of(open_trace(cell.workload.trace), model, Slo(ttft_s=cell.slo_s))
    jobs = servable(sorted(islice(every, count), key=lambda job: job.t_s), fleet)
    first_s = jobs[0].t_s
    return fleet, [replace(job, t_s=job.t_s - first_s) for job in jobs]


def oracle_rps(cell: Cell) -> float:
    """Return the rate at which the cheapest 95 % of the work fills every replica all the time.

    A replica is given the time of the objective on top, for what is under way at the end.
    """
    fleet, jobs = laid_out(cell)
    blocks = cell.replicas * _cache_tokens(fleet[0]) // jobs[0].block_tokens
    work_s = sorted(least_work_s(fleet[0], jobs, found_blocks(jobs, blocks)))
    needed_s = sum(work_s[: int(GOAL * len(work_s))])
    return cell.replicas * len(jobs) / max(1e-9, needed_s - cell.replicas * cell.slo_s)


def found_blocks(jobs: Sequence[Job], room: int) -> list[int]:
    """Return how many blocks of each prompt are in a cache of so many blocks.

    Whatever is needed again last leaves first, or does not come in.
    """
    uses: dict[int, deque[int]] = defaultdict(deque)
    for n, job in enumerate(jobs):
        for block in job.blocks:
            uses[block].append(n)
    held: dict[int, int] = {}
    order: list[tuple[int, int]] = []  # when a block is needed next, the last first
    found = []
    for job in jobs:
        found.append(sum(block in held for block in job.blocks))
        for block in job.blocks:
            uses[block].popleft()
            again = uses[block][0] if uses[block] else len(jobs)
            held[block] = again
            heappush(order, (-again, block))
        while len(held) > room:
            again, block = heappop(order)
            if held.get(block) == -again:
                del held[block]
    return found


def least_work_s(server: ServerSpec, jobs: Sequence[Job], found: Sequence[int]) -> list[float]:
    """Return the least time of an engine that each request can take, so many of its blocks being cached."""
    limits, cost = server.spec.limits or Limits(), server.cost
    tokens, seats = limits.step_tokens, limits.sequences
    token_s = cost.step_s(_prompt(tokens, 0)) / tokens
    pair_s = max(0.0, cost.step_s(_prompt(tokens, 8192)) - cost.step_s(_prompt(tokens, 0))) / (tokens * 8192)
    crowd_s = [cost.step_s(_crowd(seats, each)) for each in (1, 1025)]
    answer_s, context_s = crowd_s[0] / seats, max(0.0, crowd_s[1] - crowd_s[0]) / (seats * 1024)
    least = []
    for job, known in zip(jobs, found, strict=True):
        cached = min(known * job.block_tokens, job.prompt_tokens - 1)
        new = job.prompt_tokens - cached
        pairs = new * cached + new * max(0, new - tokens) / 2
        each_s = answer_s + context_s * job.prompt_tokens
        least.append(new * token_s + pairs * pair_s + (job.output_tokens - 1) * each_s)
    return least


def _cache_tokens(server: ServerSpec) -> int:
    limits = server.spec.limits or Limits()
    return limits.kv_blocks * limits.block_tokens


def _crowd(seats: int, each: int) -> StepShape:
    return StepShape(decodes=seats, decode_context_tokens=seats * each, emits=seats)


def _prompt(tokens: int, cached: int) -> StepShape:
    pairs = tokens * cached + tokens * (tokens + 1) // 2
    return StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=pairs)


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return how `millrace` compares with the best published policy and the oracle, on geometric average."""
    ratios, shares, behind = [], [], []
    for name, cell in cells.items():
        rates = {policy: one["capacity_rps"] for policy, one in cell["policies"].items()}
        others = [rate for policy, rate in rates.items() if policy not in OWN]
        if "millrace" not in rates or not others or not rates["millrace"]:
            continue
        ratios.append(rates["millrace"] / max(1e-9, *others))
        shares.append(rates["millrace"] / cell["oracle_rps"])
        if max(rates.values()) > cell["policies"]["millrace"]["high_rps"]:
            behind.append(name)
    if not ratios:
        return {}
    return {
        "over_best_published": round(exp(fmean(map(log, ratios))), 3),
        "of_oracle": round(exp(fmean(map(log, shares))), 3),
        "cells_behind_beyond_noise": behind,
    }


def table(found: dict[str, Any]) -> str:
    """Return the result for people."""
    lines = ["requests per second within the objective (95 %), simulated"]
    for name, cell in found["cells"].items():
        lines += ["", f"{name}: the oracle {cell['oracle_rps']:.2f}"]
        ranked = sorted(cell["policies"].items(), key=lambda item: -item[1]["capacity_rps"])
        lines += [
            f"  {one['capacity_rps']:9.2f}  [{one['low_rps']:.2f}, {one['high_rps']:.2f}]  {policy}"
            for policy, one in ranked
        ]
    return "\n".join([*lines, "", *(f"{what}: {value}" for what, value in found["summary"].items())])


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

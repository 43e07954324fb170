"""How many requests the simulator plays per second of processor time: leaping against stepping, in one run.

    python benchmarks/simulator_speed.py [--requests N] [--json] [--write]

The workload is the Azure conversation trace on llama-3-8b and a100-80g (all of it by default), through the
real controller with `least_work`, and the Mooncake conversation trace on 16 replicas with prefix-aware
routing. Stepping, which is slow, plays the first part only. The same trace several times over shows whether
the cost of a request grows with their number.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Job, jobs_of, servers, simulate

RESULT = Path(__file__).parent / "results" / "simulator_speed.json"
STEPPED = 2000
ROUNDS = 3
AZURE = "a100-80g llama-3-8b"
MOONCAKE = "16x a100-80g llama-3-8b max_model_len=131072 block_size=512"


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=None, help="of each trace; all if left out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    found = measure(args.requests)
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else table(found))


def measure(limit: int | None) -> dict[str, Any]:
    """Return requests per CPU second of every case."""
    azure = list(islice(jobs_of(open_trace("azure_conv_2023"), "llama-3-8b", Slo()), limit))
    conversation = jobs_of(open_trace("mooncake_conversation"), "llama-3-8b", Slo())
    mooncake = sorted(islice(conversation, limit), key=lambda job: job.t_s)
    rates: dict[str, float] = {}
    for count in (1, 8):
        fleet = f"{count}x {AZURE}"
        rates[f"azure, {count} replicas, leaping"] = best(azure, fleet, "least_work")
        part = azure[:STEPPED]
        rates[f"azure, {count} replicas, leaping, first {len(part)}"] = best(part, fleet, "least_work")
        stepped = best(part, fleet, "least_work", leaping=False, rounds=1)
        rates[f"azure, {count} replicas, stepping, first {len(part)}"] = stepped
        tell(f"{count} replicas done")
    rates["azure, 64 replicas of which most idle, leaping"] = best(azure, f"64x {AZURE}", "round_robin")
    rates["azure, 8 replicas, round_robin, leaping"] = best(azure, f"8x {AZURE}", "round_robin")
    rates["azure, 8 replicas, round_robin, 5 times over"] = best(
        repeated(azure, 5), f"8x {AZURE}", "round_robin", rounds=1
    )
    rates["mooncake, 16 replicas, prefix_affinity, leaping"] = best(mooncake, MOONCAKE, "prefix_affinity")
    return {
        "requests": {"azure": len(azure), "mooncake": len(mooncake)},
        "requests_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
        "machine": f"{platform.machine()}, CPython {platform.python_version()}, one core",
    }


def best(
    jobs: Sequence[Job], fleet: str, routing: str, *, leaping: bool = True, rounds: int = ROUNDS
) -> float:
    """Return the best of some rounds, in requests per CPU second."""
    return max(rate(jobs, fleet, routing, leaping) for _ in range(rounds))


def rate(jobs: Sequence[Job], fleet: str, routing: str, leaping: bool) -> float:
    """Play the jobs once."""
    controller = Controller(load("routing", routing), load("queueing", "fcfs"))
    parts = servers(parse_fleet(fleet))
    began_s = process_time()
    simulate(jobs, parts, controller, load("batching", "split_fuse"), leaping=leaping)
    return len(jobs) / (process_time() - began_s)


def repeated(jobs: Sequence[Job], times: int) -> list[Job]:
    """The jobs over and over, with other ids."""
    span_s = jobs[-1].t_s + 1.0
    return [
        replace(job, t_s=job.t_s + n * span_s, request=replace(job.request, id=f"{job.request.id}-{n}"))
        for n in range(times)
        for job in jobs
    ]


def table(found: dict[str, Any]) -> str:
    """Return the result for people."""
    rows = [f"{rate:>9,}  {name}" for name, rate in found["requests_per_cpu_s"].items()]
    return "\n".join(["requests per CPU second, simulated fleets", *rows])


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

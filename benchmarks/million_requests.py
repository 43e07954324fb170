"""A million requests in one simulation: two models, replicas that die and start cold; CPU time and memory.

    python benchmarks/million_requests.py [--requests N] [--json] [--write]

The workload is made, not read: requests as long as those of the Azure conversation trace, which come as they
came there, half of them for each model. Every ten simulated minutes a replica is killed, and half a minute
later it is told to start. Making the requests counts, and so does summing them up.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
from collections.abc import Iterator
from functools import partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from pathlib import Path
from time import process_time
from typing import Any

from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.event import Action, Event
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.request import Slo
from millrace.core.synthetic import Workload, fit_workload, generate
from millrace.core.trace import TraceRecord
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Surroundings, jobs_of, servers, simulate
from millrace.simulate.faults import Fault

RESULT = Path(__file__).parent / "results" / "million_requests.json"
MODELS = ("llama-3-8b", "qwen3-8b")
FLEET = ", ".join(f"8x a100-80g {model} cold_start=60s" for model in MODELS)
SLO = Slo(ttft_s=1.0, tpot_s=0.05)
KILLED_EVERY_S = 600.0
STARTED_AFTER_S = 30.0


class Counted(Controller):
    """The controller, and how much it was told."""

    events = 0

    def on(self, event: Event) -> list[Action]:
        """Count and pass on."""
        self.events += 1
        return super().on(event)


class Progress:
    """Says how many requests have ended."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.ended = 0

    def note(self, _: Outcome) -> None:
        """Take in an end."""
        self.ended += 1
        if self.ended % 100_000 == 0:
            print(f"{self.ended:>9,} of {self.requests:,}", file=sys.stderr, flush=True)


def measure(requests: int) -> dict[str, Any]:
    """Play so many requests once."""
    workload = fit_workload(open_trace("azure_conv_2023"))
    controller = Counted(load("routing", "least_work"), load("queueing", "fcfs"))
    fleet = servers(parse_fleet(FLEET))
    faults = tuple(faults_of(fleet, seconds_of(workload, requests)))
    began_s = process_time()
    found = simulate(
        jobs(workload, requests),
        fleet,
        controller,
        load("batching", "split_fuse"),
        slo=SLO,
        surroundings=Surroundings(faults=faults),
        progress=Progress(requests).note,
        keep_outcomes=False,
    )
    cpu_s = process_time() - began_s
    got = found.measured
    return {
        "requests": got.requests,
        "completed": got.completed,
        "failed": got.failed,
        "refused": got.refused,
        "faults": len(faults),
        "events": controller.events,
        "simulated_h": round(found.simulated_s / 3600, 1),
        "cpu_s": round(cpu_s, 1),
        "requests_per_cpu_s": round(got.requests / cpu_s),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "held_after": {"flights": len(controller.state.flights), "queues": len(controller.state.held)},
        "machine": f"{platform.machine()}, CPython {platform.python_version()}, one core",
    }


def jobs(workload: Workload, requests: int) -> Iterator[Job]:
    """Yield the requests one by one, in the order of their times."""
    streams = (
        map(partial(_renamed, seed), generate(workload, seed=seed, requests=requests, model=model))
        for seed, model in enumerate(MODELS)
    )
    return jobs_of(islice(merge(*streams, key=attrgetter("t_s")), requests), MODELS[0], SLO)


def _renamed(seed: int, record: TraceRecord) -> TraceRecord:
    """Two workloads number their requests alike, so the model's number comes first."""
    return replace(record, id=f"{seed}-{record.id}")


def seconds_of(workload: Workload, requests: int) -> float:
    """Return about how long so many requests of all models take to arrive."""
    seconds = sum(period.seconds for period in workload.periods)
    return requests * seconds / sum(p.seconds * p.rate_per_s for p in workload.periods) / len(MODELS)


def faults_of(fleet: list[ServerSpec], seconds: float) -> Iterator[Fault]:
    """Yield a death and a new start every ten minutes, each of another replica."""
    for number in range(int(seconds / KILLED_EVERY_S)):
        replica, at_s = fleet[number % len(fleet)].id, (number + 0.5) * KILLED_EVERY_S
        yield Fault(at_s, "kill", replica)
        yield Fault(at_s + STARTED_AFTER_S, "start", replica)


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    found = measure(args.requests)
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else "\n".join(f"{name:<20}{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()

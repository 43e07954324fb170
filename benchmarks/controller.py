"""What a decision costs: CPU per request (arrival, first token, end) for each routing policy and fleet size.

Also shows that the cost does not grow with what has happened before, how much each replica adds, and what the
policy takes of it for prompts of 100 blocks that share 60 with others, while engines report their load. Time
is the processor time of this process, the best of several rounds, so other work on the machine moves it
little.

    python benchmarks/controller.py [--requests 2000] [--rounds 5] [--json benchmarks/results/controller.json]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections import deque
from collections.abc import Iterator
from itertools import count, islice, pairwise
from math import inf
from pathlib import Path
from time import process_time
from typing import Any

from millrace.control import Controller, ControlSettings
from millrace.core.draw import draw, draw_below
from millrace.core.event import Arrived, Finished, Reported, Started
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.core.request import Request
from millrace.policies import load, names

FLEETS = (8, 64, 256)
HISTORIES = (1_000, 10_000, 100_000)
DECIDING = (16, 256)
DECISIONS = 400
LONG_BLOCKS = 100
IN_FLIGHT = 4  # requests per replica that run at any time
INDEX_BYTES = 1 << 20  # small enough that a long history fills it


class Traffic:
    """An endless stream of requests through one controller, of which a few per replica are in flight."""

    def __init__(self, routing: str, replicas: int) -> None:
        settings = ControlSettings(prefix_index_bytes=INDEX_BYTES)
        self.controller = Controller(load("routing", routing), load("queueing", "fcfs"), settings)
        self._running: deque[str] = deque()
        self._most = IN_FLIGHT * replicas
        self._requests = _requests()
        for n in range(replicas):
            spec = ReplicaSpec(models=("m",), prefill_tokens_per_s=4000.0 + n, decode_step_s=0.02)
            self.controller.on(Reported(0.0, f"replica-{n}", "ready", spec))
        self.run_s(2 * self._most)

    def run_s(self, requests: int) -> float:
        """Send this many requests through; return the processor time that the controller took."""
        batch = list(islice(self._requests, requests))
        on, running = self.controller.on, self._running
        gc.collect()
        start_s = process_time()
        for request in batch:
            on(Arrived(0.0, request))
            on(Started(0.0, request.id))
            running.append(request.id)
            if len(running) > self._most:
                on(Finished(0.0, running.popleft()))
        return process_time() - start_s


def _requests() -> Iterator[Request]:
    """Yield prompts of 8 blocks: the first 6 are one of 50 common prefixes, the others are new."""
    for n in count():
        prefix = draw_below(50, "prefix", n)
        blocks = [draw("block", prefix, k) >> 1 for k in range(6)]
        blocks += [draw("own block", n, k) >> 1 for k in range(2)]
        yield Request(id=f"request-{n}", model="m", prompt_tokens=500, max_tokens=64, blocks=tuple(blocks))


def decision_us(routing: str, replicas: int, *, rounds: int) -> float:
    """Return the microseconds that a policy takes to route one long prompt; `note` is not in it."""
    controller = Controller(load("routing", routing), load("queueing", "fcfs"))
    said = Report(now_s=0.0, running=4, waiting=0, kv_free_tokens=50_000)
    for n in range(replicas):
        spec = ReplicaSpec(
            models=("m",), limits=Limits(), prefill_tokens_per_s=4000.0, decode_step_s=0.02, attended_s=1e-9
        )
        controller.on(Reported(0.0, f"replica-{n}", "ready", spec, said))
    requests = [_long(n) for n in range(4 * replicas + DECISIONS)]
    asked = requests[-DECISIONS:]
    for request in requests[:-DECISIONS]:
        controller.on(Arrived(1.0, request))
        controller.on(Started(1.0, request.id))
    view, route = controller.state.view(2.0, "m"), controller.routing.route
    best_s = inf
    for _ in range(rounds):
        start_s = process_time()
        for request in asked:
            route(request, view)
        best_s = min(best_s, process_time() - start_s)
    return best_s / DECISIONS * 1e6


def _long(n: int) -> Request:
    family = 1_000 * (n % 50)
    blocks = [draw("block", family + k) >> 1 for k in range(LONG_BLOCKS * 6 // 10)]
    blocks += [draw("own block", n, k) >> 1 for k in range(LONG_BLOCKS - len(blocks))]
    tokens = 16 * LONG_BLOCKS
    return Request(id=f"long-{n}", model="m", prompt_tokens=tokens, max_tokens=64, blocks=tuple(blocks))


def cost_us(routing: str, replicas: int, *, requests: int, rounds: int) -> float:
    """Return the microseconds per request of a policy in a fleet of this size."""
    traffic = Traffic(routing, replicas)
    return min(traffic.run_s(requests) for _ in range(rounds)) / requests * 1e6


def by_history_us(routing: str, replicas: int, *, requests: int, rounds: int) -> dict[int, float]:
    """Return the microseconds per request once this many have gone through the same controller."""
    traffic, done, found = Traffic(routing, replicas), 0, {}
    for history in HISTORIES:
        traffic.run_s(history - done)
        done = history + rounds * requests
        found[history] = min(traffic.run_s(requests) for _ in range(rounds)) / requests * 1e6
    return found


def measure(requests: int, rounds: int) -> dict[str, Any]:
    """Measure everything; progress goes to stderr."""
    costs: dict[str, dict[int, float]] = {}
    for routing in names("routing"):
        print(f"measuring {routing} ...", file=sys.stderr)
        costs[routing] = {n: cost_us(routing, n, requests=requests, rounds=rounds) for n in FLEETS}
    print("measuring a long history ...", file=sys.stderr)
    return {
        "machine": f"{platform.machine()}, CPython {platform.python_version()}",
        "requests": requests,
        "rounds": rounds,
        "us_per_request_by_replicas": costs,
        "us_per_long_decision_by_replicas": {
            routing: {n: decision_us(routing, n, rounds=rounds) for n in DECIDING}
            for routing in names("routing")
        },
        "us_per_request_by_history": by_history_us("least_work", 8, requests=1000, rounds=rounds),
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    costs = found["us_per_request_by_replicas"]
    print(f"{'µs per request':<18}" + "".join(f"{n:>6} replicas" for n in FLEETS) + "   µs per added replica")
    for routing, by_size in costs.items():
        added = [(by_size[b] - by_size[a]) / (b - a) for a, b in pairwise(FLEETS)]
        row = "".join(f"{by_size[n]:>15.1f}" for n in FLEETS)
        print(f"{routing:<18}{row}   {' then '.join(f'{each:.2f}' for each in added)}")
    print(f"\n{'µs per decision':<18}" + "".join(f"{n:>6} replicas" for n in DECIDING) + "   (100 blocks)")
    for routing, by_size in found["us_per_long_decision_by_replicas"].items():
        print(f"{routing:<18}" + "".join(f"{by_size[n]:>15.1f}" for n in DECIDING))
    print("\nleast_work at 8 replicas, after a history of")
    for history, us in found["us_per_request_by_history"].items():
        print(f"{history:>9} requests{us:>9.1f}")


def main() -> None:
    """Measure, print, and write the result if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = measure(asked.requests, asked.rounds)
    show(found)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

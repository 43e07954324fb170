"""What it costs to send one of a long queue, under policies that sort it and one that keeps its order.

    python benchmarks/long_queue.py [--write]

So many requests are held for one replica that takes one at a time; then a thousand times one finishes, one is
sent, and one arrives. The least of three rounds counts.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

from benchmarks.queue_day import NewestFirst
from millrace.control import Controller, ControlSettings, QueueSettings
from millrace.core.event import Arrived, Finished, Reported
from millrace.core.fleet import FleetView, QueueingPolicy
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load

RESULT = Path(__file__).parent / "results" / "long_queue.json"
LENGTHS = (100, 1000, 10_000)
TURNS = {100: 1000, 1000: 1000, 10_000: 100}
SPEC = ReplicaSpec(models=("m",), limits=Limits(sequences=1))


@dataclass(frozen=True)
class Sorting:
    """The same order as that of NewestFirst, made anew whenever somebody is to be sent."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        """Order by priority, the last to come first."""
        return sorted(held, key=lambda one: one.priority)[::-1]


class Line:
    """A controller with so many requests held, which is kept at that."""

    def __init__(self, policy: QueueingPolicy, length: int) -> None:
        rules = QueueSettings(engine_queue=0, starvation_s=1e9)
        settings = ControlSettings(max_held=length + 1, max_hold_s=1e9, queue=rules)
        self.controller = Controller(load("routing", "least_request"), policy, settings)
        self.controller.on(Reported(0.0, "a", "ready", SPEC))
        self.arrived = 0
        for _ in range(length + 1):
            self.arrive(0.0)
        self.running = "q0"

    def arrive(self, now_s: float) -> None:
        """Let one more come."""
        asked = Request(
            id=f"q{self.arrived}", model="m", prompt_tokens=9, max_tokens=9, priority=self.arrived % 3
        )
        self.controller.on(Arrived(now_s, asked))
        self.arrived += 1

    def turn(self, now_s: float) -> None:
        """Let one finish, another be sent, and one more come."""
        (sent,) = self.controller.on(Finished(now_s, self.running))
        self.running = sent.request_id
        self.arrive(now_s)


def turn_us(policy: QueueingPolicy, length: int) -> float:
    """Measure a turn, in microseconds of CPU time."""
    line, turns, rounds = Line(policy, length), TURNS[length], []
    for number in range(3):
        began_s = process_time()
        for turn in range(turns):
            line.turn(1.0 + number + turn / turns)
        rounds.append((process_time() - began_s) / turns * 1e6)
    return min(rounds)


def main() -> None:
    """Measure, print, and write the result if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    makers = {"fcfs": lambda: load("queueing", "fcfs"), "sorts": Sorting, "keeps its order": NewestFirst}
    found = {name: {n: turn_us(make(), n) for n in LENGTHS} for name, make in makers.items()}
    print(f"{'µs a turn, held:':<18}" + "".join(f"{n:>10}" for n in LENGTHS))
    for name, costs in found.items():
        print(f"{name:<18}" + "".join(f"{costs[n]:>10.1f}" for n in LENGTHS))
    if asked.write:
        machine = f"{platform.machine()}, CPython {platform.python_version()}"
        result = {"machine": machine, "us_per_turn_by_held": found}
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A day of bursts at a queue with rules: who was sent, refused and expired, and whether any rule was broken.

    python benchmarks/queue_day.py [--hours H] [--json] [--write]

Requests of three priorities and nine tenants come for 24 simulated hours: four a second, and every ten
minutes ten times as many for a minute, of which one tenant sends half. The queueing policy is as unfair as it
can be: the highest priority first, and of that the newest. After every event the rules are checked from
outside.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

from msgspec import UNSET

from millrace.control import Band, Controller, ControlSettings, QueueSettings
from millrace.core.event import Action, Arrived, Dispatch, Event, Finished, Refuse
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.fleet_spec import parse_fleet
from millrace.core.ranked import Ranked
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, servers, simulate

RESULT = Path(__file__).parent / "results" / "queue_day.json"
MODEL = "llama-3-8b"
FLEET = f"2x a100-80g {MODEL} max_num_seqs=16"
BANDS = (
    Band(priority=-1, max_held=100, max_hold_s=20.0),
    Band(priority=0, reserved=50, share=0.2),
    Band(priority=10, max_held=200, reserved=100),
)
RULES = QueueSettings(bands=BANDS, max_held_per_tenant=120, starvation_s=15.0, engine_queue=0)
SETTINGS = ControlSettings(max_held=300, max_hold_s=30.0, queue=RULES)
PRIORITIES = (-1, 0, 0, 0, 10, 10)
PERIOD_S, BURST_S, CALM_RPS, BURST_RPS = 600.0, 60.0, 4.0, 40.0


@dataclass
class NewestFirst:
    """The highest priority first, and of that the newest: whoever waits is overtaken whenever it can be."""

    _ranked: dict[str, Ranked] = field(default_factory=dict, init=False)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        """Order by priority, the last to come first."""
        return sorted(held, key=lambda one: one.priority)[::-1]

    def first(self, model: str, fleet: FleetView) -> str | None:
        """Name the newest of the highest priority."""
        return self._ranked[model].first() if model in self._ranked else None

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Follow who comes and goes."""
        if isinstance(fact, Held):
            ranked = self._ranked.setdefault(fact.request.model, Ranked())
            ranked.put(fact.request.id, (-fact.request.priority, -fact.number))
        elif isinstance(fact, Left):
            self._ranked[fact.request.model].discard(fact.request.id)


class Audited(Controller):
    """A controller that somebody looks over the shoulder of. `broken` counts what no rule allows."""

    counts: Counter[str]
    broken: Counter[str]
    longest_overtaken_s = 0.0
    most_held = 0

    def on(self, event: Event) -> list[Action]:
        """Decide as ever; then look at what was decided."""
        self.__dict__.setdefault("counts", Counter())
        self.__dict__.setdefault("broken", Counter())
        actions = super().on(event)
        self.counts["arrived"] += isinstance(event, Arrived)
        self.counts["finished"] += isinstance(event, Finished)
        for action in actions:
            if isinstance(action, Dispatch):
                self.counts["sent"] += 1
                self._see_sent(action, event.now_s)
            elif isinstance(action, Refuse):
                self.counts[action.reason if action.reason is not UNSET else "no reason"] += 1
        self._see_held()
        return actions

    def _see_sent(self, action: Dispatch, now_s: float) -> None:
        flight = self.state.flights[action.request_id]
        queue = self.state.held.get(flight.request.model)
        if queue is not None and (oldest := queue.oldest()).number < flight.number:
            overtaken_s = now_s - oldest.arrived_s
            self.longest_overtaken_s = max(self.longest_overtaken_s, overtaken_s)
            self.broken["overtaken for too long"] += overtaken_s >= (RULES.starvation_s or 0.0)

    def _see_held(self) -> None:
        for queue in self.state.held.values():
            self.most_held = max(self.most_held, len(queue))
            self.broken["more held than may be"] += len(queue) > SETTINGS.max_held
            most = max(queue.tenants.values())
            self.broken["more of a tenant than may be"] += most > (RULES.max_held_per_tenant or most)
            for band, line in zip(self.state.held.bands, queue.bands, strict=True):
                self.broken["more of a band than may be"] += len(line) > (band.max_held or SETTINGS.max_held)


def jobs(hours: float) -> Iterator[Job]:
    """Yield the requests."""
    chance, now_s, number = Random(5), 0.0, 0
    while now_s < hours * 3600:
        bursting = now_s % PERIOD_S < BURST_S
        now_s += chance.expovariate(BURST_RPS if bursting else CALM_RPS)
        tenant = "t0" if bursting and chance.random() < 0.5 else f"t{chance.randrange(9)}"
        output = 1 + int(chance.expovariate(1 / 200))
        prompt = 1 + int(chance.expovariate(1 / 300))
        asked = Request(
            id=f"q{number}",
            model=MODEL,
            prompt_tokens=prompt,
            max_tokens=output,
            tenant=tenant,
            priority=chance.choice(PRIORITIES),
        )
        yield Job(t_s=now_s, request=asked, prompt_tokens=prompt, output_tokens=output)
        number += 1


def play(hours: float) -> dict[str, Any]:
    """Simulate so many hours; return the sums, and what was broken."""
    groups = list(parse_fleet(FLEET))
    fleet = servers(groups, lambda group: group.roofline)
    controller = Audited(load("routing", "least_request"), NewestFirst(), SETTINGS)
    began_s = process_time()
    done = simulate(jobs(hours), fleet, controller, load("batching", "split_fuse"), keep_outcomes=False)
    counts = controller.counts
    refused = {name: count for name, count in counts.items() if name.startswith("rejected-")}
    expired = refused.pop("rejected-ttl-expired", 0)
    arrived, completed = counts["arrived"], done.measured.completed
    return {
        "hours": hours,
        "arrived": arrived,
        "admitted": completed,
        "refused": refused,
        "expired": expired,
        "adds_up": arrived == completed + sum(refused.values()) + expired,
        "most_held": controller.most_held,
        "longest_overtaken_s": controller.longest_overtaken_s,
        "broken": {name: count for name, count in controller.broken.items() if count},
        "cpu_s": process_time() - began_s,
    }


def main() -> int:
    """Play, print, and write the result if asked; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = play(asked.hours)
    print(json.dumps(found, indent=2) if asked.json else _shown(found))
    if asked.write:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if found["adds_up"] and not found["broken"] else 1


def _shown(found: dict[str, Any]) -> str:
    refused = found["refused"]
    lines = [f"{found['hours']:g} simulated hours in {found['cpu_s']:.0f} s"]
    lines += [f"{found['arrived']:>9} arrived", f"{found['admitted']:>9} admitted, and answered"]
    lines += [f"{count:>9} refused: {reason}" for reason, count in sorted(refused.items())]
    lines += [f"{found['expired']:>9} expired while held"]
    lines += [f"the sums {'add up' if found['adds_up'] else 'DO NOT ADD UP'}"]
    lines += [f"at most {found['most_held']} were held, of {SETTINGS.max_held} that may be"]
    lines += [f"nobody was overtaken after {found['longest_overtaken_s']:.2f} s, of {RULES.starvation_s:g} s"]
    return "\n".join([*lines, f"broken: {found['broken'] or 'nothing'}"])


if __name__ == "__main__":
    sys.exit(main())

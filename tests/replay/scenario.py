"""Ten seconds in the life of a small fleet, always the same: bursts, failures, a replica lost and found.

    python -m tests.replay.scenario [--check | POLICY ...]

records the golden logs again, after a change that means to alter decisions, or checks that none is missing.
Queueing policies have logs if they were named once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.control.log import entry, header
from millrace.core.answer_length import LengthPrediction
from millrace.core.draw import draw_below
from millrace.core.event import (
    Arrived,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Reported,
    Started,
    Ticked,
)
from millrace.core.replica import Phase, ReplicaSpec, Report
from millrace.core.request import Request
from millrace.policies import load, names

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = ControlSettings(max_attempts=2, max_held=6, max_hold_s=2.0)
HOLDING = replace(SETTINGS, max_waiting=1)  # so that there is a queue to order
REQUESTS = 80
SPECS = {
    "fast": ReplicaSpec(models=("m", "n"), prefill_tokens_per_s=4000.0, decode_step_s=0.01),
    "slow": ReplicaSpec(models=("m",), prefill_tokens_per_s=1000.0, decode_step_s=0.03),
    "unknown": ReplicaSpec(models=("m",)),
    "other": ReplicaSpec(models=("n",), prefill_tokens_per_s=1000.0),
}
CHANGES: tuple[tuple[float, str, Phase], ...] = (
    (0.0, "fast", "ready"),
    (0.0, "slow", "ready"),
    (0.0, "unknown", "starting"),
    (0.0, "other", "ready"),
    (1.0, "unknown", "ready"),
    (4.0, "slow", "draining"),
    (4.25, "unknown", "gone"),
    (4.5, "fast", "gone"),
    (7.0, "fast", "ready"),
    (7.5, "slow", "ready"),
    (8.0, "unknown", "starting"),
    (8.5, "unknown", "ready"),
)


class Scenario:
    """Plays a shell whose engines take as long, and break as often, as a draw says."""

    def __init__(self, policy: str) -> None:
        routed = policy in names("routing")
        routing, queueing = (policy, "fcfs") if routed else ("least_work", policy)
        settings = SETTINGS if routed else HOLDING
        self.controller = Controller(load("routing", routing), load("queueing", queueing), settings)
        self._arrivals = _arrivals() if routed else _predicted(_arrivals())
        self.log = [header(self.controller, scenario="tests/replay/scenario.py")]
        self._heap: list[tuple[float, int, Event]] = []
        self._order = count()

    def play(self) -> bytes:
        """Return the log of everything that happened."""
        for now_s, replica, phase in CHANGES:
            report = Report(now_s=now_s, running=0) if phase == "ready" else None
            self._at(Reported(now_s, replica, phase, SPECS[replica], report))
        for request, now_s in self._arrivals:
            self._at(Arrived(now_s, request))
        while self._heap:
            self._tell(heappop(self._heap)[2])
        return b"".join(self.log)

    def _at(self, event: Event) -> None:
        heappush(self._heap, (event.now_s, next(self._order), event))

    def _tell(self, event: Event) -> None:
        actions = self.controller.on(event)
        self.log.append(entry(event, actions))
        for action in actions:
            if isinstance(action, Dispatch):
                for answer in _fate(action, event.now_s):
                    self._at(answer)
        due_s = self.controller.next_deadline_s()
        if due_s is not None and all(planned != Ticked(due_s) for _, _, planned in self._heap):
            self._at(Ticked(due_s))


def _arrivals() -> Iterator[tuple[Request, float]]:
    """Yield five requests every half second, of which some share a prefix and a few have deadlines."""
    for n in range(REQUESTS):
        now_s = n // 5 / 2 + n % 5 / 64
        prefix = draw_below(6, "prefix", n)
        yield (
            Request(
                id=f"q{n}",
                model=("absent", "n", "n", "n", "m")[min(4, draw_below(16, "model", n))],
                prompt_tokens=200 + draw_below(1000, "prompt", n),
                max_tokens=64,
                blocks=tuple(100 * prefix + k for k in range(2 * prefix)),
                deadline_s=None if draw_below(4, "deadline", n) else now_s + 1.0,
            ),
            now_s,
        )


def _predicted(arrivals: Iterator[tuple[Request, float]]) -> Iterator[tuple[Request, float]]:
    """Let most requests carry a prediction, some of which rule out nothing."""
    for request, now_s in arrivals:
        tokens = 1 + draw_below(64, "predicted", request.id)
        classes = tuple(range(1 + draw_below(3, "classes", request.id)))
        said = LengthPrediction(tokens, classes) if draw_below(8, "says", request.id) else None
        yield replace(request, predicted=said), now_s


def _fate(action: Dispatch, now_s: float) -> Iterator[Event]:
    """Yield what an engine makes of a request: some attempts break, before or after the first token."""
    asked, names = action.request_id, (action.request_id, action.attempt)
    started_s = now_s + (16 + draw_below(64, *names, "start")) / 128
    ended_s = started_s + (16 + draw_below(256, *names, "end")) / 128
    luck = draw_below(20, *names, "luck")
    if luck > 2:
        yield Started(started_s, asked)
    if luck > 5:
        yield Finished(ended_s, asked, output_tokens=1 + draw_below(64, *names, "tokens"))
    elif luck > 3:
        yield Cancelled(ended_s, asked)
    else:
        yield Failed(ended_s, asked, "connection reset", replica_down=luck == 0)


def main(arguments: list[str]) -> int:
    """Record the logs of the policies named, or of all; with `--check` only say which have none."""
    if "--check" in arguments:
        missing = [name for name in names("routing") if not (GOLDEN / f"{name}.jsonl").exists()]
        for name in missing:
            print(f"{name} has no golden log yet; run: python -m tests.replay.scenario {name}")
        return len(missing)
    GOLDEN.mkdir(exist_ok=True)
    for name in arguments or [*names("routing"), "clairvoyant"]:
        (GOLDEN / f"{name}.jsonl").write_bytes(Scenario(name).play())
        print(f"recorded {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

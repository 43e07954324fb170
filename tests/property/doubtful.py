"""Fleets of which little is known: replicas that say nothing, said something long ago, or are not there."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import count

from msgspec import Struct

from millrace.control import Controller, ControlSettings
from millrace.core.draw import draw_below
from millrace.core.event import Arrived, Dispatch, Event, Failed, Finished, Refuse, Reported, Started
from millrace.core.replica import Limits, Phase, ReplicaSpec, Report
from millrace.core.request import Request
from millrace.policies import load

LIMITS = Limits(kv_blocks=8192)
SPEC = ReplicaSpec(models=("m",), limits=LIMITS)
EACH_TOKENS = 1000  # a request of somebody else
OPENS_S = 60.0  # what was said at 0 s is stale by then
START_S, END_S, REPORT_S = 0.25, 2.0, 1.0
PATIENT = ControlSettings(max_held=100_000, max_hold_s=1000.0)


class Member(Struct, frozen=True):
    """A replica: `speaks` every second, or said once long ago that it was idle (`spoke`), or said nothing.

    `others` are requests of somebody else that run there.
    """

    phase: Phase = "ready"
    speaks: bool = False
    spoke: bool = False
    others: int = 0
    spec: ReplicaSpec = SPEC


class Doubtful:
    """Plays a shell whose engines all take as long; `sent` counts the requests by replica."""

    def __init__(self, routing: str, members: list[Member]) -> None:
        self.controller = Controller(load("routing", routing), load("queueing", "fcfs"), PATIENT)
        self.members = {f"r{n}": member for n, member in enumerate(members)}
        self.sent: Counter[str] = Counter()
        self.refused: list[Refuse] = []
        self._flights: dict[str, tuple[str, Request]] = {}
        self._requests: dict[str, Request] = {}
        self._agenda: list[tuple[float, int, Event]] = []
        self._order = count()

    @property
    def able(self) -> list[str]:
        """Those that can answer."""
        return [name for name, member in self.members.items() if member.phase == "ready"]

    def play(self, requests: int, *, every_s: float = 0.125, dies: str | None = None) -> None:
        """Send so many requests that share no prefix; half way one replica may die with all it had."""
        for name, member in self.members.items():
            said = Report(now_s=0.0, running=0, waiting=0, kv_free_tokens=16 * LIMITS.kv_blocks)
            self._at(Reported(0.0, name, member.phase, member.spec, said if member.spoke else None))
        for n in range(requests):
            self._at(Arrived(OPENS_S + n * every_s, _request(n)))
        for n in range(int(requests * every_s / REPORT_S) + 1):
            for name in self.able:
                if self.members[name].speaks:
                    self._at(Reported(OPENS_S + n * REPORT_S, name, "ready"))
        death_s = OPENS_S + requests * every_s / 2
        while self._agenda:
            event = heappop(self._agenda)[2]
            if dies is not None and event.now_s >= death_s:
                self._kill(dies, event.now_s)
                dies = None
            self._tell(event)

    def _kill(self, name: str, now_s: float) -> None:
        self.members[name] = Member(phase="gone")
        lost = [asked for asked, (replica, _) in self._flights.items() if replica == name]
        for one in lost:
            del self._flights[one]
            self._tell(Failed(now_s, one, "connection reset", replica_down=True))

    def _at(self, event: Event) -> None:
        heappush(self._agenda, (event.now_s, next(self._order), event))

    def _tell(self, event: Event) -> None:
        if isinstance(event, Reported) and event.now_s:
            if self.members[event.replica].phase == "gone":
                return
            event = Reported(event.now_s, event.replica, "ready", report=self._report(event))
        elif isinstance(event, Started | Finished) and not self._goes_on(event):
            return
        elif isinstance(event, Arrived):
            self._requests[event.request.id] = event.request
        for action in self.controller.on(event):
            if isinstance(action, Dispatch):
                self._begin(action, event.now_s)
            elif isinstance(action, Refuse):
                self.refused.append(action)

    def _begin(self, action: Dispatch, now_s: float) -> None:
        asked = action.request_id
        self.sent[action.replica] += 1
        self._flights[asked] = action.replica, self._requests[asked]
        self._at(Started(now_s + START_S, asked))
        self._at(Finished(now_s + END_S, asked, output_tokens=100))

    def _goes_on(self, event: Started | Finished) -> bool:
        """Whether the attempt that the event is about is still under way; note it if it ends."""
        if event.request_id not in self._flights:
            return False
        if isinstance(event, Finished):
            del self._flights[event.request_id]
        return True

    def _report(self, event: Reported) -> Report:
        """Return what the engine says: others' requests and ours."""
        member = self.members[event.replica]
        ours = [
            request.prompt_tokens for replica, request in self._flights.values() if replica == event.replica
        ]
        taken = sum(ours) + member.others * EACH_TOKENS
        return Report(
            now_s=event.now_s,
            running=member.others + len(ours),
            waiting=member.others // 4,
            kv_free_tokens=max(0, 16 * LIMITS.kv_blocks - taken),
        )


def _request(n: int) -> Request:
    tokens = 200 + draw_below(600, "prompt", n)
    blocks = tuple(1000 * n + k for k in range(tokens // 16))
    return Request(id=f"q{n}", model="m", prompt_tokens=tokens, max_tokens=200, blocks=blocks)

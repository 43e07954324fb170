"""What every engine did when: its runs of steps, and a file of them for chrome://tracing and Perfetto."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from millrace.core.replica import Report
from millrace.replica.progress import Progress
from millrace.simulate.engine import Engine
from millrace.simulate.job import Job


class Stretch(Struct, frozen=True, kw_only=True):
    """A run of steps of one engine: who ran in it, who waited when it began, who ended with it.

    `kv_free_tokens` of the cache were free on average.
    """

    replica: str
    start_s: float
    end_s: float
    running: int
    waiting: int
    ended: int
    kv_free_tokens: float


Watch = Callable[[Stretch], object]


class Observed:
    """An engine like the one inside, whose runs are told as they end; a run that is lost is not told."""

    def __init__(self, engine: Engine, tell: Watch) -> None:
        self.engine = engine
        self.tell = tell
        self.id = engine.id
        self.spec = engine.spec
        self.cold_start_s = engine.cold_start_s
        self.end_s = engine.end_s
        self._start_s = 0.0
        self._begun: Report | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self.engine.busy

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError for one that can never fit."""
        self.engine.add(job)

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""
        self.engine.abort(request_id)

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once; return the ids of all jobs, with the tokens that each has."""
        return self.engine.drop(now_s)

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run, which will end at `end_s`; False if there is nothing to do."""
        began = self.engine.start(now_s, slowdown)
        if began:
            self._start_s, self.end_s = now_s, self.engine.end_s
            self._begun = self.engine.report(now_s)
        return began

    def cut(self, now_s: float) -> bool:
        """Let the run end with the step that is under way now; False if it would have anyway."""
        sooner = self.engine.cut(now_s)
        self.end_s = self.engine.end_s
        return sooner

    def make_way(self, now_s: float) -> bool:
        """Let the run end when who has just been added may get its turn; False if it would have anyway."""
        sooner = self.engine.make_way(now_s)
        self.end_s = self.engine.end_s
        return sooner

    def finish(self) -> Progress:
        """End the run under way, and tell of it."""
        assert self._begun is not None
        begun_free, last_free = (
            report.kv_free_tokens or 0 for report in (self._begun, self.engine.report(self.end_s))
        )
        progress = self.engine.finish()
        self.tell(
            Stretch(
                replica=self.id,
                start_s=self._start_s,
                end_s=self.end_s,
                running=self._begun.running or 0,
                waiting=self._begun.waiting or 0,
                ended=len(progress.ended),
                kv_free_tokens=(begun_free + last_free) / 2,
            )
        )
        return progress

    def report(self, now_s: float) -> Report:
        """Return what the engine's `/metrics` would say now."""
        return self.engine.report(now_s)


class ChromeTrace:
    """Writes stretches as Trace Event Format: a process with one lane per replica; `close` ends the file."""

    def __init__(self, write: Callable[[bytes], object], title: str, replicas: Iterable[str]) -> None:
        self._write = write
        self._lanes = {replica: lane for lane, replica in enumerate(replicas, 1)}
        write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        write(msgspec.json.encode(_name("process_name", 0, title)))
        for replica, lane in self._lanes.items():
            self._add(_name("thread_name", lane, replica))

    def tell(self, stretch: Stretch) -> None:
        """Write one slice, in microseconds."""
        self._add(
            {
                "name": f"{stretch.running} running",
                "ph": "X",
                "pid": 1,
                "tid": self._lanes[stretch.replica],
                "ts": stretch.start_s * 1e6,
                "dur": (stretch.end_s - stretch.start_s) * 1e6,
                "args": {
                    "running": stretch.running,
                    "waiting": stretch.waiting,
                    "ended": stretch.ended,
                },
            }
        )

    def close(self) -> None:
        """Write the end, without which it is no JSON."""
        self._write(b"\n]}\n")

    def _add(self, event: dict[str, object]) -> None:
        self._write(b",\n" + msgspec.json.encode(event))


def _name(what: str, lane: int, name: str) -> dict[str, object]:
    return {"name": what, "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}}

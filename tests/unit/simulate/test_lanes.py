"""What engines did when, told without changing it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from millrace.control import Controller
from millrace.core.cost import Linear
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, Server, ServerSpec, simulate
from millrace.simulate.lanes import ChromeTrace, Observed, Stretch

SPEC = ServerSpec(
    id="r0", spec=ReplicaSpec(models=("m",), limits=Limits(sequences=2)), cost=Linear(base_s=1.0)
)


def job(id: str, t_s: float, output_tokens: int) -> Job:
    asked = Request(id=id, model="m", prompt_tokens=5, max_tokens=output_tokens)
    return Job(t_s=t_s, request=asked, prompt_tokens=5, output_tokens=output_tokens)


JOBS = [job("a", 0.0, 10), job("b", 3.5, 4), job("c", 3.6, 2), job("d", 30.0, 1)]


def run(seen: list[Stretch] | None) -> list[Outcome]:
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    tell = None if seen is None else seen.append
    return simulate(JOBS, [SPEC], controller, load("batching", "split_fuse"), runs=tell).outcomes


def test_looking_changes_nothing() -> None:
    assert run([]) == run(None)


def test_runs_fill_the_time_an_engine_is_busy_and_end_every_request() -> None:
    seen: list[Stretch] = []
    run(seen)
    assert seen[0].start_s == 0
    assert seen[-1].end_s == 31
    assert [(a.end_s, b.start_s) for a, b in pairwise(seen) if a.end_s != b.start_s] == [(10, 30)]
    assert sum(one.ended for one in seen) == len(JOBS)
    assert {one.running for one in seen} == {1, 2}
    assert max(one.waiting for one in seen) == 1


def test_an_engine_that_loses_everything_tells_of_no_run() -> None:
    seen: list[Stretch] = []
    engine = Observed(Server(SPEC, load("batching", "split_fuse")), seen.append)
    engine.add(JOBS[0])
    assert engine.start(0.0)
    assert engine.drop(0.5) == {"a": 0}
    assert not engine.busy
    assert not engine.start(1.0)
    assert engine.report(1.0).running == 0
    assert seen == []


def test_an_abort_reaches_the_engine() -> None:
    engine = Observed(Server(SPEC, load("batching", "split_fuse")), print)
    engine.add(JOBS[0])
    engine.abort("a")
    assert not engine.start(0.0)


def test_a_chrome_trace_is_json_in_microseconds() -> None:
    written: list[bytes] = []
    trace = ChromeTrace(written.append, "some policy", ["r0", "r1"])
    trace.tell(
        Stretch(replica="r1", start_s=1.0, end_s=1.5, running=3, waiting=2, ended=1, kv_free_tokens=9.0)
    )
    trace.close()
    *names, only = json.loads(b"".join(written))["traceEvents"]
    assert [(event["tid"], event["args"]["name"]) for event in names] == [
        (0, "some policy"),
        (1, "r0"),
        (2, "r1"),
    ]
    assert (only["ph"], only["tid"], only["ts"], only["dur"]) == ("X", 2, pytest.approx(1e6), 5e5)
    assert only["args"] == {"running": 3, "waiting": 2, "ended": 1}

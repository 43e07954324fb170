"""A simulated fleet caps answers that run on as a gateway would."""

from __future__ import annotations

from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.control.log import read_entry
from millrace.core.cost import Linear
from millrace.core.event import Arrived
from millrace.core.outcome import Outcome
from millrace.core.overflow import GuardSettings, OverflowGuard
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import ServerSpec, jobs_of, simulate

SETTINGS = GuardSettings(caps=True, evidence=3, remembered=6, long_tokens=100, floor_tokens=5)


def records(max_tokens: int | None = None) -> list[TraceRecord]:
    """A tenant with brief answers and one with long ones, in turn, each after the other's end."""
    lengths = {"brief": 10, "endless": 200}
    every = [(n, tenant) for n in range(8) for tenant in lengths]
    return [
        TraceRecord(
            id=f"{tenant}{n}",
            t_s=1000.0 * n,
            input_tokens=9,
            output_tokens=lengths[tenant],
            max_tokens=max_tokens,
            tenant=tenant,
        )
        for n, tenant in every
    ]


def played(found: list[TraceRecord], lines: list[bytes]) -> dict[str, Outcome]:
    """Simulate them; return what became of each."""
    engine = ServerSpec(id="r", spec=ReplicaSpec(models=("m",), limits=Limits()), cost=Linear(base_s=1.0))
    controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"), ControlSettings())
    jobs, guard = jobs_of(found, "m", Slo()), OverflowGuard(SETTINGS)
    batching = load("batching", "split_fuse")
    done = simulate(jobs, [engine], controller, batching, guard=guard, log=lines.append)
    return {one.id: one for one in done.outcomes}


def test_whose_answers_run_on_gets_a_limit_once_there_is_evidence() -> None:
    lines: list[bytes] = []
    outcomes = played(records(), lines)
    assert [outcomes[f"endless{n}"].output_tokens for n in range(8)] == [200] * 3 + [15] * 5
    assert {outcomes[f"brief{n}"].output_tokens for n in range(8)} == {10}
    arrived = [event for line in lines[1:] if isinstance(event := read_entry(line, 2).event, Arrived)]
    assert arrived[-1].request.max_tokens == 15
    again: list[bytes] = []
    played(records(), again)
    assert again == lines


def test_who_asked_for_less_than_the_limit_keeps_that() -> None:
    asked = [replace(one, output_tokens=9, max_tokens=12) if one.t_s > 2000 else one for one in records()]
    assert played(asked, [])["endless7"].output_tokens == 9


def test_who_is_refused_teaches_nothing() -> None:
    unknown = [replace(one, model="other") if one.t_s < 3000 else one for one in records()]
    outcomes = played(unknown, [])
    assert outcomes["endless0"].status == "refused"
    assert [outcomes[f"endless{n}"].output_tokens for n in range(3, 8)] == [200] * 3 + [15] * 2

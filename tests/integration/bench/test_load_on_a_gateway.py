"""The load, the launcher and a real gateway process together, in front of fake engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned, Shape, shape
from millrace.core.outcome import Outcome
from millrace.core.trace import TraceRecord
from millrace.launch import Process, gateway_command
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script

NAMES = ["left", "right"]


def plan(count: int) -> list[Planned]:
    records = [TraceRecord(id=f"r{i}", t_s=i / 100, input_tokens=100, output_tokens=16) for i in range(count)]
    return shape(records, Shape(model="m", vocab_tokens=4096))


def through_a_gateway(engines: list[FakeEngine], folder: Path, disturb: Callable[[Outcome], None]) -> Sent:
    """Send twenty requests through a gateway process; `disturb` is called after each answer."""

    async def run() -> Sent:
        for engine in engines:
            await engine.start()
        command = gateway_command(routing="round_robin", names=NAMES)([engine.url for engine in engines])
        gateway = Process("gateway", command, folder / "gateway.log")
        try:
            await gateway.start(within_s=60)
            return await Load(gateway.url, plan(20), timeout_s=30, on_outcome=disturb).run()
        finally:
            await gateway.stop()
            for engine in engines:
                await engine.stop()

    return asyncio.run(run())


def test_a_gateway_answers_every_planned_request_and_names_the_replica(tmp_path: Path) -> None:
    engines = [FakeEngine(script=Script(tokens=3, cached_tokens=16)) for _ in NAMES]
    result = through_a_gateway(engines, tmp_path, lambda outcome: None)
    assert {o.status for o in result.outcomes} == {"completed"}, result.outcomes
    assert {o.replica for o in result.outcomes} == set(NAMES)
    assert {(o.output_tokens, o.cached_tokens) for o in result.outcomes} == {(3, 16)}


def test_no_request_is_lost_when_a_replica_begins_to_fail(tmp_path: Path) -> None:
    engines = [FakeEngine() for _ in NAMES]

    def break_one(outcome: Outcome) -> None:
        engines[0].script = Script(breaks="reset", break_after=1)

    result = through_a_gateway(engines, tmp_path, break_one)
    assert [o.id for o in result.outcomes] == [f"r{i}" for i in range(20)]
    assert {o.status for o in result.outcomes} == {"completed", "failed"}
    assert all(o.error for o in result.outcomes if o.status == "failed")

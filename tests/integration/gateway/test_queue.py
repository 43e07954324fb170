"""Rules of the queue on real sockets: who waits, who is turned away, and what they hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millrace.control import Band, QueueSettings, Saturation
from millrace.control.log import replay
from millrace.core.replica import Limits, ReplicaSpec
from millrace.gateway.app import Gateway
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import (
    Answer,
    Caller,
    ask,
    caller,
    chat,
    controller,
    gateway_for,
    get,
    run,
    until,
)

ONE_SLOT = ReplicaSpec(
    models=(), limits=Limits(sequences=1, step_tokens=64), prefill_tokens_per_s=10.0, decode_step_s=0.01
)
HOGGING = Script(breaks="silence", break_after=1)
LLMDS = "x-llm-d-request-dropped-reason"


@asynccontextmanager
async def busy(log: Path | None = None, **patience: Any) -> AsyncIterator[tuple[FakeEngine, Gateway, Caller]]:
    """A gateway before an engine that runs one request at a time, and has one: that of this client."""
    rules: QueueSettings = patience.pop("rules")
    mind = controller(queue=rules, **patience)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(FakeEngine("a", script=HOGGING))
        served = gateway_for(engine, mind=mind, specs={"a": ONE_SLOT}, event_log=log)
        gateway = await stack.enter_async_context(served)
        hog = await stack.enter_async_context(caller(gateway))
        await hog.say(chat(stream=True))
        await hog.reader.readuntil(b"data: ")
        engine.script = Script()
        yield engine, gateway, hog


async def waits(gateway: Gateway, one: Caller, *lines: str, already: int) -> None:
    """Ask, and see that the request is held, as so many are already."""
    await one.say(chat(*lines))
    await until(lambda: len(gateway.exchanges) == already + 2, "the request is held")


def told(answer: Answer) -> tuple[int, str, str | None, bool]:
    """Return an answer's status, its code, llm-d's word for it, and whether it says when to come back."""
    return (
        answer.status,
        answer.json["error"]["code"],
        answer.fields.get(LLMDS),
        "retry-after" in answer.fields,
    )


def test_a_full_queue_refuses_with_a_reason_and_keeps_reserved_places_free(tmp_path: Path) -> None:
    rules = QueueSettings(
        bands=(Band(priority=0), Band(priority=10, reserved=1)), max_held_per_tenant=1, engine_queue=0
    )

    async def scenario() -> None:
        async with (
            busy(tmp_path / "log", rules=rules, max_held=2) as (_, gateway, hog),
            AsyncExitStack() as more,
        ):
            low, high = [await more.enter_async_context(caller(gateway)) for _ in range(2)]
            await waits(gateway, low, "x-tenant-id: t", already=0)
            refused = await ask(gateway, chat("x-tenant-id: u"))
            assert told(refused) == (429, "rejected-capacity", "rejected-saturated", True)
            assert refused.fields["x-should-retry"] == "true"
            await waits(gateway, high, "x-priority: 10", "x-tenant-id: v", already=1)
            refused = await ask(gateway, chat("x-priority: 99", "x-tenant-id: v"))
            assert told(refused)[:2] == (429, "rejected-capacity")
            page = (await ask(gateway, get("/metrics"))).body.decode()
            for line in (
                'flow_control_held{model="m",priority="0",tenant="t"} 1.0',
                'flow_control_held{model="m",priority="10",tenant="v"} 1.0',
                'flow_control_dropped_total{model="m",reason="rejected-capacity"} 2.0',
                'flow_control_oldest_wait_seconds{model="m",priority="0",tenant="t"} ',
            ):
                assert f"millrace_{line}" in page
            hog.reset()
            assert [(await one.answer()).status for one in (low, high)] == [200, 200]

    run(scenario())
    replayed = replay((tmp_path / "log").read_bytes().splitlines(keepends=True))
    assert replayed.first_difference is None


def test_a_tenant_with_too_many_waiting_is_refused_and_others_are_not() -> None:
    async def scenario() -> None:
        rules = QueueSettings(max_held_per_tenant=1, engine_queue=0)
        async with busy(rules=rules) as (_, gateway, _), caller(gateway) as one, caller(gateway) as other:
            await waits(gateway, one, "x-tenant-id: t", already=0)
            refused = await ask(gateway, chat("x-tenant-id: t"))
            assert told(refused) == (429, "rejected-capacity-tenant", "rejected-saturated", True)
            await waits(gateway, other, "x-tenant-id: u", already=1)
            one.reset()
            await until(lambda: len(gateway.exchanges) == 2, "the gateway knows that the client left")
            dropped = gateway.metrics.dropped
            assert dropped == {("m", "rejected-capacity-tenant"): 1, ("m", "rejected-context-cancelled"): 1}

    run(scenario())


def test_who_waited_too_long_hears_why() -> None:
    async def scenario() -> None:
        rules = QueueSettings(bands=(Band(priority=0), Band(priority=10, max_hold_s=0.05)), engine_queue=0)
        async with busy(rules=rules) as (_, gateway, _):
            expired = await ask(gateway, chat("x-priority: 10"))
            assert told(expired) == (503, "rejected-ttl-expired", "rejected-ttl-expired", True)
            overdue = await ask(gateway, chat("x-deadline-ms: 50"))
            assert told(overdue) == (504, "rejected-deadline", "rejected-ttl-expired", False)

    run(scenario())


def test_a_request_that_would_be_answered_too_late_never_reaches_the_engine() -> None:
    async def scenario() -> None:
        async with busy(rules=QueueSettings(drop_late="slo")) as (engine, gateway, _):
            heard = len(engine.heard)
            late = await ask(gateway, chat("x-slo-ttft-ms: 10"))
            assert told(late) == (503, "rejected-late", "rejected-ttl-expired", True)
            late = await ask(gateway, chat("x-deadline-ms: 10"))
            assert told(late) == (504, "rejected-late", "rejected-ttl-expired", False)
            assert (await ask(gateway, chat("x-slo-ttft-ms: 60000"))).status == 200
            assert len(engine.heard) == heard + 1

    run(scenario())


def test_an_engine_that_says_nothing_of_its_load_is_saturated_and_who_may_be_shed_is() -> None:
    async def scenario() -> None:
        rules = QueueSettings(saturation=Saturation())
        async with FakeEngine("a") as engine, gateway_for(engine, mind=controller(queue=rules)) as gateway:
            engine.pages["/metrics"] = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\n"
            await until(lambda: _silent(gateway), "a report that says nothing was heard")
            shed = await ask(gateway, chat("x-priority: -1"))
            assert told(shed) == (429, "rejected-saturated", "rejected-saturated", True)
            async with caller(gateway) as one:
                await one.say(chat())
                await until(lambda: gateway.exchanges, "the request is held")
                del engine.pages["/metrics"]
                assert (await one.answer()).status == 200

    run(scenario())


def _silent(gateway: Gateway) -> bool:
    mind: Any = gateway.controller
    report = mind.state.replicas["a"].report
    return report is not None and report.waiting is None


@pytest.mark.parametrize("line", ["x-priority: high", "x-deadline-ms: soon", "x-deadline-ms: -1"])
def test_urgency_that_is_no_number_is_refused_by_its_name(line: str) -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine, gateway_for(engine) as gateway:
            answer = await ask(gateway, chat(line))
            assert (answer.status, answer.json["error"]["param"]) == (400, line.partition(":")[0])

    run(scenario())


def test_who_is_held_when_the_gateway_stops_is_told_so() -> None:
    async def scenario() -> None:
        rules = QueueSettings(engine_queue=0)
        async with busy(rules=rules) as (_, gateway, _), caller(gateway) as one:
            await waits(gateway, one, already=0)
            gateway.end_all("the gateway is shutting down")
            answer = await asyncio.wait_for(one.answer(), 5)
            assert told(answer) == (503, "rejected-shutting-down", "rejected-shutting-down", True)

    run(scenario())

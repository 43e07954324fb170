"""Moves that come to nothing, at every stage: the client reads on where the answer is, or is told so."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from millrace.control import Controller
from millrace.gateway.app import Gateway
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.shifting import Restless
from tests.integration.gateway.world import Answer, ask, caller, chat, gateway_for, run, until

SLOW = Script(tokens=30, tpot_s=0.01)
LEAVES = replace(SLOW, end_mark=False)


def movable(name: str, script: Script) -> FakeEngine:
    """An engine that says it has a KV port."""
    engine = FakeEngine(name, script=script)
    card = {"id": "m", "kv_transfer": {"kv_format": "f", "remote_host": "h", "remote_port": 1}}
    body = json.dumps({"data": [card]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    engine.pages["/v1/models"] = head % len(body) + body
    return engine


@asynccontextmanager
async def world(
    source: Script, target: Script, move_timeout_s: float = 10.0
) -> AsyncIterator[tuple[FakeEngine, FakeEngine, Gateway]]:
    """Two engines; every stream begins at the first, and is to go on at the second."""
    mind = Controller(RoundRobin(), Fcfs(), migration=Restless())
    async with (
        movable("a", source) as a,
        movable("b", target) as b,
        gateway_for(a, b, mind=mind, move_timeout_s=move_timeout_s) as gateway,
    ):
        yield a, b, gateway


def words(answer: Answer) -> list[str]:
    told = [event for event in answer.events if event != "[DONE]" and event.get("choices")]
    return [event["choices"][0]["delta"].get("content", "") for event in told]


def check_idle(gateway: Gateway) -> None:
    assert not gateway.exchanges
    assert isinstance(gateway.controller, Controller)
    view = gateway.controller.state.replicas.values()
    assert all((one.running, one.waiting, one.coming_tokens) == (0, 0, 0) for one in view)


def test_the_request_that_takes_over_is_the_clients_own_and_says_where_the_answer_is() -> None:
    async def scenario() -> None:
        async with world(SLOW, Script(status=503)) as (_, b, gateway):
            await ask(gateway, chat("x-request-id: one", stream=True, temperature=0.5))
            (heard,) = b.heard
            assert heard.headers["x-request-id"] == "one"
            assert (heard.json["temperature"], heard.json["stream"]) == (0.5, True)
            params = heard.json["kv_transfer_params"]
            assert params["do_remote_move"] is True
            assert (params["remote_request_id"], params["remote_port"]) == ("one", 1)

    run(scenario())


def test_what_the_source_does_not_say_the_target_says() -> None:
    async def scenario() -> None:
        async with world(LEAVES, Script(tokens=4)) as (a, b, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert answer.whole
            assert answer.events[-1] == "[DONE]"
            assert answer.events.count("[DONE]") == 1
            assert gateway.metrics.moves == Counter(moved=1)
            assert (a.live, b.live, len(b.heard)) == (0, 0, 1)
            check_idle(gateway)

    run(scenario())


def test_a_target_may_come_after_the_source_has_left() -> None:
    async def scenario() -> None:
        late = Script(tokens=4, ttft_s=0.6)
        async with world(replace(LEAVES, tokens=10), late) as (_, _, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert answer.events[-1] == "[DONE]"
            assert gateway.metrics.moves == Counter(moved=1)
            check_idle(gateway)

    run(scenario())


def test_a_target_that_refuses_breaks_or_hesitates_changes_nothing() -> None:
    async def scenario(target: Script, reason: str) -> None:
        async with world(SLOW, target, move_timeout_s=0.15) as (_, b, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert answer.events[-1] == "[DONE]"
            assert gateway.metrics.moves == Counter({reason: 1})
            await until(lambda: b.live == 0, "the target was told to stop")
            check_idle(gateway)

    run(scenario(Script(status=503), "status_503"))
    run(scenario(Script(breaks="reset"), "reset"))
    run(scenario(Script(breaks="garbage"), "garbage"))
    run(scenario(Script(breaks="silence"), "timeout"))
    run(scenario(Script(tokens=1000, tpot_s=0.01), "timeout"))


def test_a_source_that_ends_before_the_move_has_the_last_word() -> None:
    async def scenario() -> None:
        async with world(replace(SLOW, tokens=6), Script(tokens=1000, tpot_s=0.01)) as (_, b, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert len(words(answer)) <= 8
            assert answer.events[-1] == "[DONE]"
            await until(lambda: b.aborted == 1, "the target was told to stop")
            check_idle(gateway)

    run(scenario())


def test_a_source_that_breaks_during_the_move_is_a_stream_that_breaks() -> None:
    async def scenario() -> None:
        breaks = replace(SLOW, breaks="reset", break_after=10)
        async with world(breaks, Script(breaks="silence")) as (_, b, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert "error" in answer.events[-1]
            await until(lambda: b.live == 0, "the target was told to stop")
            check_idle(gateway)

    run(scenario())


def test_a_target_that_breaks_once_the_source_has_left_is_a_stream_that_breaks() -> None:
    async def scenario(target: Script) -> None:
        async with world(LEAVES, target) as (_, _, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert "error" in answer.events[-1]
            check_idle(gateway)

    run(scenario(Script(tokens=1000, tpot_s=0.01, breaks="reset", break_after=60)))


def test_a_client_that_leaves_during_the_move_frees_both_engines() -> None:
    async def scenario() -> None:
        async with world(replace(SLOW, tokens=3000), Script(tokens=3000, tpot_s=0.01)) as (a, b, gateway):
            async with caller(gateway) as one:
                await one.say(chat(stream=True))
                await until(lambda: a.live and b.live, "both work on it")
                one.reset()
            await until(lambda: not a.live and not b.live, "both have stopped")
            assert (a.aborted, b.aborted) == (1, 1)
            check_idle(gateway)

    run(scenario())


def test_a_slow_client_is_waited_for_at_the_joint_too() -> None:
    async def scenario() -> None:
        leaves = replace(LEAVES, pad_bytes=20_000)
        async with world(leaves, replace(SLOW, pad_bytes=20_000)) as (_, _, gateway):
            async with caller(gateway, limit=1024) as one:
                await one.say(chat(stream=True))
                await asyncio.sleep(0)
                answer = await one.answer()
            assert answer.events[-1] == "[DONE]"
            assert gateway.metrics.moves == Counter(moved=1)

    run(scenario())

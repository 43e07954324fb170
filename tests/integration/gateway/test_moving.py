"""Requests move between engines behind the gateway, and their clients notice nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from millrace.control import Controller
from millrace.gateway.app import Gateway
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from tests.integration.engine.process import Engine, started
from tests.integration.gateway.shifting import Restless
from tests.integration.gateway.world import Answer, ask, gateway_for, post

STREAMS = 20
LENGTH = 64
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """Two engines with the demo model, which can take KV caches from each other."""
    own = [
        "engine",
        "--model",
        "demo",
        "--port",
        "0",
        "--kv-port",
        "0",
        "--threads",
        "1",
        "--kv-blocks",
        "1024",
    ]
    argv = [sys.executable, "-m", "millrace", *own]
    with ExitStack() as stack:
        yield {name: stack.enter_context(started(argv)) for name in ("a", "b")}


def backends(engines: dict[str, Engine]) -> tuple[str, ...]:
    return tuple(f"{name}={engine.url}" for name, engine in engines.items())


def completion(number: int, **fields: Any) -> bytes:
    fixed = {"model": "demo", "prompt": f"def function_{number}(", "max_tokens": LENGTH, "temperature": 0}
    body = fixed | {"stream": True, "ignore_eos": True} | fields
    return post(json.dumps(body).encode(), path="/v1/completions")


def text_of(answer: Answer) -> str:
    """The text of a stream that is whole, all of whose events are of one answer."""
    assert answer.whole
    assert answer.events[-1] == "[DONE]"
    events = answer.events[:-1]
    assert len({event["id"] for event in events}) == 1
    return "".join(choice["text"] for event in events for choice in event["choices"])


async def idle(engine: Engine) -> bool:
    """Whether an engine holds nothing any more."""
    return await asyncio.to_thread(lambda: engine.metric("kv_cache_usage_perc") == 0)


async def all_idle(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        async with asyncio.timeout(60):
            while not await idle(engine):
                await asyncio.sleep(0.05)


async def undisturbed(gateway: Gateway, numbers: range) -> list[str]:
    answers = await asyncio.gather(*(ask(gateway, completion(number)) for number in numbers))
    return [text_of(answer) for answer in answers]


@pytest.mark.parametrize("failover", [True, False])
def test_twenty_streams_move_while_they_run_and_say_what_they_would_have(
    engines: dict[str, Engine], failover: bool
) -> None:
    async def scenario() -> None:
        named: dict[str, Any] = {"backends": backends(engines), "failover": failover}
        async with gateway_for(**named) as gateway:
            expected = await undisturbed(gateway, range(STREAMS))
        restless = Restless()
        mind = Controller(RoundRobin(), Fcfs(), migration=restless)
        async with gateway_for(mind=mind, **named) as gateway:
            assert await undisturbed(gateway, range(STREAMS)) == expected
            assert gateway.metrics.moves == Counter(moved=STREAMS)
            assert not gateway.exchanges
        await all_idle(engines)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_stream_may_move_again_and_again(engines: dict[str, Engine]) -> None:
    async def scenario() -> None:
        async with gateway_for(backends=backends(engines)) as gateway:
            (expected,) = await undisturbed(gateway, range(1))
        mind = Controller(RoundRobin(), Fcfs(), migration=Restless(times=6))
        async with gateway_for(mind=mind, backends=backends(engines)) as gateway:
            assert await undisturbed(gateway, range(1)) == [expected]
            assert gateway.metrics.moves["moved"] >= 3
        await all_idle(engines)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_an_engine_that_is_killed_while_streams_move_both_ways_costs_nobody_a_word(
    engines: dict[str, Engine],
) -> None:
    async def scenario() -> None:
        async with gateway_for(backends=backends(engines)) as gateway:
            expected = await undisturbed(gateway, range(STREAMS))
        restless = Restless(times=20, period_s=0.02)
        mind = Controller(RoundRobin(), Fcfs(), migration=restless)
        async with gateway_for(mind=mind, backends=backends(engines)) as gateway:
            answers = asyncio.create_task(undisturbed(gateway, range(STREAMS)))
            while gateway.metrics.moves["moved"] < STREAMS:
                await asyncio.sleep(0.001)
            engines["b"].process.kill()
            assert await answers == expected
            assert gateway.metrics.resumed["elsewhere"] > 0
            assert not gateway.exchanges
        await all_idle({"a": engines["a"]})

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))

"""Engines that drain hand over what they have under way, by the way that is soonest: nobody misses a word."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import uvloop
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.ways import Assumed
from millrace.gateway.app import Gateway
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.engine.process import Engine, started
from tests.integration.gateway.test_moves_that_fail import check_idle, movable, words
from tests.integration.gateway.test_moving import (
    PATIENCE_S,
    STREAMS,
    all_idle,
    backends,
    completion,
    text_of,
)
from tests.integration.gateway.world import ask, caller, chat, gateway_for, get, run, until

QUICK = Assumed(period_s=0.05)
SLOW_LINK = replace(QUICK, link_bytes_per_s=1.0)
LONG = {"max_tokens": 112}
OWN = ["engine", "--model", "demo", "--port", "0", "--kv-port", "0", "--threads", "1", "--kv-blocks", "1024"]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """Two engines with the demo model, which can take KV caches from each other."""
    with ExitStack() as stack:
        argv = [sys.executable, "-m", "millrace", *OWN]
        yield {name: stack.enter_context(started(argv)) for name in ("a", "b")}


@pytest.fixture(scope="module")
def expected(engines: dict[str, Engine]) -> list[str]:
    """What the streams say if nothing happens to them."""

    async def scenario() -> list[str]:
        async with before(engines, QUICK) as gateway:
            return await texts(gateway)

    return uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


def mind(assumed: Assumed) -> Controller:
    return Controller(RoundRobin(), Fcfs(), ControlSettings(leaving=assumed))


@asynccontextmanager
async def before(engines: dict[str, Engine], assumed: Assumed) -> AsyncIterator[Gateway]:
    async with gateway_for(mind=mind(assumed), backends=backends(engines), admin_port=0) as gateway:
        yield gateway


async def texts(gateway: Gateway) -> list[str]:
    answers = await asyncio.gather(*(ask(gateway, completion(number, **LONG)) for number in range(STREAMS)))
    return [text_of(answer) for answer in answers]


async def while_they_run(gateway: Gateway) -> asyncio.Task[list[str]]:
    """Begin all streams, and wait until every client has the beginning of its answer."""
    answers = asyncio.create_task(texts(gateway))
    await until(lambda: len(gateway.exchanges) == STREAMS, "all streams arrive")
    await until(lambda: all(one.committed for one in gateway.exchanges.values()), "all streams begin")
    return answers


async def turn(gateway: Gateway, order: str, replica: str = "a") -> int:
    path = f"/replicas/{replica}/{order}"
    return (await ask(gateway.admin, get(path, "POST"))).status  # type: ignore[arg-type]


@pytest.mark.parametrize(("assumed", "way"), [(QUICK, "moved"), (SLOW_LINK, "replayed")])
def test_an_engine_that_is_told_to_drain_hands_its_streams_over_to_the_letter(
    engines: dict[str, Engine], expected: list[str], assumed: Assumed, way: str
) -> None:
    async def scenario() -> None:
        async with before(engines, assumed) as gateway:
            answers = await while_they_run(gateway)
            sources = [one for one in gateway.exchanges.values() if one.engine and one.engine.id == "a"]
            assert await turn(gateway, "drain") == 204
            assert gateway.fleet.members["a"].phase == "draining"
            assert await answers == expected
            assert set(gateway.metrics.moves) == {way}
            assert gateway.metrics.moves[way] >= len(sources) - 1 >= STREAMS // 4
            assert await turn(gateway, "resume") == 204
            assert gateway.fleet.ready == 2
            check_idle(gateway)
        await all_idle(engines)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_an_engine_that_is_terminated_hands_over_its_twenty_streams_and_ends(
    engines: dict[str, Engine], expected: list[str]
) -> None:
    async def scenario() -> None:
        async with before(engines, QUICK) as gateway:
            await turn(gateway, "drain", "b")  # so that all of them begin at the other one
            answers = await while_they_run(gateway)
            assert {one.engine.id for one in gateway.exchanges.values() if one.engine} == {"a"}
            await turn(gateway, "resume", "b")
            engines["a"].process.send_signal(signal.SIGTERM)
            assert await answers == expected
            assert gateway.metrics.moves["moved"] >= STREAMS - 2
            assert await asyncio.to_thread(engines["a"].process.wait, 10) == 0
            await until(lambda: gateway.fleet.members["a"].phase == "gone", "the gateway notices its end")
            check_idle(gateway)
        await all_idle({"b": engines["b"]})

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


SLOW = Script(tokens=30, tpot_s=0.01)


def test_an_answer_that_can_leave_by_no_way_ends_where_it_is() -> None:
    async def scenario() -> None:
        async with (
            movable("a", SLOW) as a,
            movable("b", replace(SLOW, status=503)) as b,
            gateway_for(a, b, mind=mind(QUICK), admin_port=0) as gateway,
        ):
            async with caller(gateway) as one:
                await one.say(chat(stream=True, max_tokens=1000))
                await until(lambda: any(x.committed for x in gateway.exchanges.values()), "it begins")
                await turn(gateway, "drain")
                answer = await one.answer()
            assert answer.whole
            assert len("".join(words(answer)).split()) == 30
            assert gateway.metrics.moves == Counter(unable=1)
            check_idle(gateway)

    run(scenario())


def test_the_admin_port_says_what_cannot_be_told_to_drain() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine, gateway_for(engine, admin_port=0) as gateway:
            assert await turn(gateway, "drain", "b") == 404
            assert await turn(gateway, "explode") == 404
            answer = await ask(gateway.admin, get("/replicas/a/drain"))  # type: ignore[arg-type]
            assert (answer.status, answer.fields["allow"]) == (405, "POST")
            assert (await ask(gateway, get("/replicas/a/drain", "POST"))).status == 404

    run(scenario())


def test_an_engine_without_a_name_of_its_own_is_told_to_drain_by_its_address() -> None:
    async def scenario() -> None:
        unnamed = ("http://127.0.0.1:1/base", "http://127.0.0.1:1")
        async with gateway_for(backends=unnamed, admin_port=0) as gateway:
            for name in ("127.0.0.1:1/base", "127.0.0.1%3A1"):
                assert await turn(gateway, "drain", name) == 204
            assert all(member.retired for member in gateway.fleet.members.values())
            assert await turn(gateway, "resume", "127.0.0.1:1/base") == 204
            assert [one.retired for one in gateway.fleet.members.values()] == [False, True]

    run(scenario())

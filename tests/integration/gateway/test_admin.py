"""The admin port shows the gateway's own pages and nothing else, to the very end."""

from __future__ import annotations

import asyncio

from millrace.gateway.server import drain
from millrace.testing.script import Script
from tests.integration.gateway.world import Caller, ask, caller, chat, get, one_engine, run, until

PAGES = ("/metrics", "/health", "/readyz", "/version", "/v1/models", "/v1/models/m")


class Port:
    """Where to connect to."""

    def __init__(self, port: int | None) -> None:
        assert port is not None
        self.port = port


def test_the_admin_port_shows_the_same_pages_as_the_main_port() -> None:
    async def scenario() -> None:
        async with one_engine(admin_port=0) as (_, gateway), caller(Port(gateway.admin.port)) as admin:
            assert gateway.admin.port != gateway.port
            for path in PAGES:
                here, there = await admin.ask(get(path)), await ask(gateway, get(path))
                assert here.status == there.status == 200
                assert here.fields["content-type"] == there.fields["content-type"]
                assert path == "/metrics" or here.body == there.body
            await ask(gateway, chat())
            page = (await admin.ask(get("/metrics"))).body
            assert b'millrace_request_total{model="m",replica="a",outcome="ok"} 1.0' in page

    run(scenario())


def test_the_admin_port_takes_no_request_for_a_model() -> None:
    async def scenario() -> None:
        async with one_engine(admin_port=0) as (engine, gateway):
            answer = await ask(Port(gateway.admin.port), chat())
            assert answer.status == 404
            assert "admin port" in answer.json["error"]["message"]
            assert (await ask(Port(gateway.admin.port), b"nonsense\r\n\r\n")).status == 400
            assert not engine.heard

    run(scenario())


def test_without_being_asked_for_there_is_no_admin_port() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway):
            assert gateway.admin.port is None

    run(scenario())


def test_the_admin_port_answers_while_the_gateway_drains_and_keeps_it_from_nothing() -> None:
    async def scenario() -> None:
        async with one_engine(admin_port=0) as (engine, gateway), caller(Port(gateway.admin.port)) as admin:
            engine.script = Script(tokens=10_000, tpot_s=0.01)
            async with caller(gateway) as one:
                await one.say(chat(stream=True))
                await until(lambda: engine.live, "the engine works")
                hurry = asyncio.Event()
                draining = asyncio.create_task(drain(gateway, hurry))
                await until(lambda: gateway.draining, "the gateway drains")
                assert (await admin.ask(get("/readyz"))).status == 503
                await _says_running(admin, 1)
                hurry.set()
                await draining
                await _says_running(admin, 0)

    run(scenario())


async def _says_running(admin: Caller, count: int) -> None:
    page = (await admin.ask(get("/metrics"))).body
    assert b'millrace_request_running{replica="a"} %d.0' % count in page


def test_a_large_metrics_page_is_written_in_many_turns_of_the_loop() -> None:
    async def scenario() -> None:
        async with one_engine(admin_port=0) as (_, gateway), caller(Port(gateway.admin.port)) as admin:
            for number in range(300):
                gateway.metrics.series(f"m{number}", "a").end("ok", 0.1)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count())
            lines = (await admin.ask(get("/metrics"))).body.splitlines()
            counting.cancel()
            assert len(lines) > 300 * 20
            assert turns > 300 / 16

    run(scenario())

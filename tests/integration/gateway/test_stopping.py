"""Starting, draining and stopping, as a process that gets signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from millrace.control.log import replay
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import ask, caller, chat, get, run, until

DRAINING = "the gateway is shutting down"
SERVE = """
import json, sys
from pathlib import Path
from millrace.control import Controller
from millrace.gateway import GatewaySettings, run
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
fields = json.loads(sys.argv[1])
fields["event_log"] = Path(fields["event_log"]) if "event_log" in fields else None
sys.exit(run(GatewaySettings(**fields), Controller(RoundRobin(), Fcfs())))
"""


class Process:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: asyncio.StreamReader) -> None:
        self.process = process
        self.stderr = stderr
        self.port = 0


@asynccontextmanager
async def serving(backend: str, **settings: object) -> AsyncIterator[Process]:
    """Start a gateway and wait until it says that it is ready, or has ended."""
    text = json.dumps({"backends": [backend], "port": 0, "scrape_s": 0.05} | settings)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, text, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    gateway = Process(process, process.stderr)
    try:
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(gateway: Process) -> None:
    """Read the line that says where it listens."""
    line = (await gateway.stderr.readline()).decode()
    assert line.startswith("ready http://127.0.0.1:")
    gateway.port = int(line.rsplit(":", 1)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_live_streams_are_finished_and_new_requests_refused(number: signal.Signals, tmp_path: Path) -> None:
    async def scenario() -> None:
        script = Script(tokens=40, tpot_s=0.02)
        log = str(tmp_path / "log")
        async with FakeEngine("a", script=script) as engine, serving(engine.url, event_log=log) as gateway:
            await ready(gateway)
            async with caller(gateway) as streaming, caller(gateway) as idle:
                assert (await idle.ask(get("/readyz"))).status == 200
                await streaming.say(chat(stream=True))
                await until(lambda: engine.live, "the engine works")
                gateway.process.send_signal(number)
                assert (await gateway.stderr.readline()) == b"draining 1 requests\n"
                refused = await idle.ask(chat())
                assert (refused.status, refused.fields["connection"]) == (503, "close")
                readiness = await ask(gateway, get("/readyz"))
                assert (readiness.status, readiness.json["reasons"]) == (503, [DRAINING])
                answer = await streaming.answer()
                assert answer.whole
                assert len(answer.events) == 41
            assert await gateway.process.wait() == 0

    run(scenario())
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert replay(lines).first_difference is None
    assert b"Finished" in lines[-1] or b"Reported" in lines[-1]


def test_what_is_not_finished_in_time_is_told_so() -> None:
    async def scenario() -> None:
        script = Script(tokens=10_000, tpot_s=0.02)
        async with FakeEngine("a", script=script) as engine, serving(engine.url, drain_s=0.2) as gateway:
            await ready(gateway)
            async with caller(gateway) as streaming, caller(gateway) as waiting:
                await streaming.say(chat(stream=True))
                await waiting.say(chat())
                await until(lambda: engine.live == 2, "the engine works")
                gateway.process.terminate()
                answer = await streaming.answer()
                assert answer.whole
                assert answer.events[-1]["error"]["message"] == DRAINING
                told = await waiting.answer()
                assert (told.status, told.fields["retry-after"]) == (503, "1")
            assert await gateway.process.wait() == 0
            await until(lambda: engine.aborted == 2, "the engine was told to stop")

    run(scenario())


def test_a_second_signal_ends_it_at_once() -> None:
    async def scenario() -> None:
        async with FakeEngine("a", script=Script(breaks="silence")) as engine, serving(engine.url) as gateway:
            await ready(gateway)
            async with caller(gateway) as one:
                await one.say(chat())
                await until(lambda: engine.live, "the engine works")
                gateway.process.terminate()
                await gateway.stderr.readline()
                gateway.process.terminate()
                assert await gateway.process.wait() == 1

    run(scenario())


def test_a_gateway_starts_without_its_engines_and_finds_them_later() -> None:
    async def scenario() -> None:
        engine = FakeEngine("a")
        await engine.start()
        await engine.stop()
        async with serving(engine.url) as gateway:
            await ready(gateway)
            async with caller(gateway) as one:
                assert (await one.ask(get("/readyz"))).status == 503
                await one.say(chat())
                await engine.start()
                assert (await one.answer()).status == 200
            await engine.stop()

    run(scenario())

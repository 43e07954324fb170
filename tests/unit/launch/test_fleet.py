"""A fleet of child processes ends with its block, whatever ends the block."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from millrace.launch import Command, Fleet, LaunchError, engine_command, gateway_command
from tests.unit.launch.children import SERVE, all_end, python

WAIT = SERVE + "signal.pause()"
FAILING_ONCE = """
import pathlib
tries = pathlib.Path(sys.argv[2])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) == 2: sys.exit(3)
signal.pause()
"""
"""Ends by itself the second time it is started."""

BROKEN = "raise SystemExit('out of memory')"

PARENT = """
import asyncio, sys
from pathlib import Path
from millrace.launch import Fleet

def engine(port): return (sys.executable, "-S", "-c", sys.argv[2], str(port))

async def main():
    fleet = Fleet(engines=[engine, engine], gateway=lambda urls: engine, run_dir=Path(sys.argv[1]))
    async with fleet:
        print(*(p.pid for p in (*fleet.engines, fleet.gateway)), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def front(urls: Sequence[str]) -> Command:
    return python(WAIT, *urls)


def other_front(urls: Sequence[str]) -> Command:
    return python(WAIT, "other", *urls)


def pids_of(fleet: Fleet) -> list[int]:
    return [p.pid for p in (*fleet.engines, fleet.gateway) if p.pid is not None]


def fleet_in(folder: Path, *engines: str) -> Fleet:
    return Fleet(engines=[python(code) for code in engines], gateway=front, run_dir=folder / "run", grace_s=1)


def test_the_gateway_is_told_where_the_engines_are(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with fleet_in(tmp_path, WAIT, WAIT) as fleet:
            urls = [engine.url for engine in fleet.engines]
            assert "was given: " + " ".join(urls) in fleet.gateway.last_lines()
            assert len({*urls, fleet.gateway.url}) == 3
            return pids_of(fleet)

    pids = asyncio.run(run())
    assert len(pids) == 3
    assert all_end(pids)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "engine-0.log",
        "engine-1.log",
        "gateway.log",
    ]


def test_an_exception_in_the_block_ends_every_process(tmp_path: Path) -> None:
    pids: list[int] = []

    async def run() -> None:
        async with fleet_in(tmp_path, WAIT) as fleet:
            pids.extend(pids_of(fleet))
            raise RuntimeError("the experiment went wrong")

    with pytest.raises(RuntimeError, match="went wrong"):
        asyncio.run(run())
    assert all_end(pids)


def test_when_one_engine_fails_to_start_the_others_end(tmp_path: Path) -> None:
    fleet = fleet_in(tmp_path, WAIT, BROKEN, WAIT)

    async def run() -> None:
        with pytest.raises(LaunchError, match=r"engine-1 exited with code 1(?s:.*)out of memory"):
            async with fleet:
                pytest.fail("the fleet must not come up")

    asyncio.run(run())
    assert fleet.gateway.pid is None
    assert all_end(pids_of(fleet))


def test_a_killed_engine_comes_back_on_its_port(tmp_path: Path) -> None:
    async def run() -> None:
        async with fleet_in(tmp_path, WAIT, WAIT) as fleet:
            engine = fleet.engines[0]
            url, pid = engine.url, engine.pid
            await fleet.kill(engine)
            assert not engine.alive
            await fleet.restart(engine)
            assert engine.alive
            assert engine.url == url
            assert engine.pid != pid

    asyncio.run(run())


def test_an_engine_that_ends_by_itself_is_named_and_started_again_on_its_port(tmp_path: Path) -> None:
    told: list[str] = []

    async def run() -> None:
        commands = [python(SERVE + FAILING_ONCE, str(tmp_path / "tries"))]
        async with Fleet(engines=commands, gateway=front, run_dir=tmp_path / "run", grace_s=1) as fleet:
            engine = fleet.engines[0]
            url, pid = engine.url, engine.pid
            keeping = asyncio.create_task(fleet.keep_engines(told.append))
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(60):
                while sum("is back" in line for line in told) < 2:
                    await asyncio.sleep(0.01)
            assert (engine.alive, engine.url) == (True, url)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(run())
    log = tmp_path / "run" / "engine-0.log"
    back = [line for line in told if "is back" in line]
    assert told == [
        f"engine-0 was ended by signal 15; its log is {log}",
        "starting engine-0 again in 1 s",
        back[0],
        f"engine-0 exited with code 3; its log is {log}",
        "starting engine-0 again in 2 s",
        back[0],
    ]


def test_the_gateway_can_be_replaced_in_front_of_the_same_engines(tmp_path: Path) -> None:
    async def run() -> None:
        async with fleet_in(tmp_path, WAIT) as fleet:
            engine, first = fleet.engines[0].pid, fleet.gateway.pid
            await fleet.switch_gateway(other_front)
            assert fleet.engines[0].pid == engine
            assert f"was given: other {fleet.engines[0].url}" in fleet.gateway.last_lines()
            assert fleet.gateway.pid != first

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_parent_that_is_signalled(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path / "run"), WAIT]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        os.kill(parent.pid, number)
        parent.wait(timeout=20)
    assert len(pids) == 3
    assert all_end(pids)


def test_the_commands_say_what_the_verbs_understand(tmp_path: Path) -> None:
    engine = engine_command(tmp_path, threads=2, options=("--step-tokens", "64"))(8101)
    words = f"-m millrace engine --model {tmp_path} --port 8101 --threads 2 --step-tokens 64"
    assert list(engine[1:]) == words.split()
    gateway = gateway_command(routing="two_choices", event_log=tmp_path / "log")(["http://a", "http://b"])(0)
    words = "-m millrace serve --backend http://a --backend http://b --routing two_choices --port 0"
    assert list(gateway[1:]) == [*words.split(), "--event-log", str(tmp_path / "log")]


def test_a_gateway_can_be_told_its_port_and_the_names_of_its_engines() -> None:
    command = gateway_command(routing="fcfs", names=["x", "y"], port=8080)(["http://a", "http://b"])
    words = "-m millrace serve --backend x=http://a --backend y=http://b --routing fcfs --port"
    assert list(command(0)[1:]) == [*words.split(), "8080"]
    assert list(command(8099)[1:]) == [*words.split(), "8099"]

"""Child processes: coming up, failing to, and surely going away. Real processes, real signals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millrace.launch import LaunchError, Process
from tests.unit.launch.children import SERVE, all_end, python


def process(code: str, folder: Path) -> Process:
    return Process("server", python(code), folder / "server.log")


def test_a_ready_process_tells_its_address_and_logs_both_streams(tmp_path: Path) -> None:
    async def run() -> None:
        server = process(SERVE + "signal.pause()", tmp_path)
        await server.start(within_s=10)
        host, port = server.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()
        assert server.alive
        assert f"{server.pid} was given" in server.last_lines()
        await server.stop()
        assert not server.alive

    asyncio.run(run())


def test_a_process_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    server = process("raise SystemExit('no such model: x')", tmp_path)
    with pytest.raises(LaunchError, match=r"exited with code 1 before it was ready(?s:.*)no such model: x"):
        asyncio.run(server.start(within_s=10))


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    server = Process("server", lambda port: ("/no/such/program", str(port)), tmp_path / "server.log")
    with pytest.raises(LaunchError, match=r"code 127(?s:.*)cannot run /no/such/program: No such file"):
        asyncio.run(server.start(within_s=10))


def test_a_process_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    server = process("import signal; print('loading', flush=True); signal.pause()", tmp_path)

    async def run() -> None:
        with pytest.raises(LaunchError, match=r"was not ready within 0\.3 s"):
            await server.start(within_s=0.3)

    asyncio.run(run())
    assert server.pid is not None
    assert all_end([server.pid])


def test_a_process_deaf_to_sigterm_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf = ignore + SERVE + "while True: signal.pause()"

    async def run() -> int:
        server = process(deaf, tmp_path)
        await server.start(within_s=10)
        await server.stop(grace_s=0.1)
        assert server.pid is not None
        return server.pid

    assert all_end([asyncio.run(run())])


def test_stopping_ends_the_children_of_the_process_too(tmp_path: Path) -> None:
    parent = "import subprocess\n" + SERVE + "subprocess.run(['sleep', '60'])"

    def child_of(pid: int | None) -> int | None:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else None

    async def run() -> int:
        server = process(parent, tmp_path)
        await server.start(within_s=10)
        while (child := child_of(server.pid)) is None:
            await asyncio.sleep(0.01)
        await server.stop()
        return child

    assert all_end([asyncio.run(run())])


def test_stopping_what_never_started_or_has_ended_does_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        server = process(SERVE, tmp_path)  # announces itself, then ends by itself
        await server.stop()
        await server.start(within_s=10)
        await server.stop()
        await server.stop()
        server.kill()
        assert not server.alive

    asyncio.run(run())

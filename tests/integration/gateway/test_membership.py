"""An engine comes and another one goes while prompts are asked again and again: few of them move house."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from math import sqrt
from pathlib import Path
from typing import Any

import uvloop
from msgspec import UNSET

from millrace.control import Controller, ControlSettings
from millrace.control.log import Recording, Retelling
from millrace.core.event import Dispatch
from millrace.core.prompt import Measure
from millrace.core.ways import Assumed
from millrace.gateway.app import Gateway
from millrace.policies import load
from tests.integration.engine.process import MODEL, command, save_model, started
from tests.integration.gateway.world import ask, gateway_for, post

KEYS = [f"prompt {number:04} begins like no other one" for number in range(160)]
AT_ONCE = 8
MARGIN = 4.0  # standard deviations
PATIENCE_S = 90.0
OLD, CAME, WENT = (frozenset(names) for names in ("abc", "abcd", "bcd"))

Homes = dict[str, frozenset[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def before(policy: str, ports: dict[str, int], log: Path) -> AsyncIterator[Gateway]:
    settings = ControlSettings(log_scores=True, leaving=Assumed())
    mind = Controller(load("routing", policy), load("queueing", "fcfs"), settings)
    backends = tuple(f"{name}=http://127.0.0.1:{port}" for name, port in ports.items())
    options: dict[str, Any] = {"backends": backends, "event_log": log, "measure": Measure(block_bytes=32)}
    async with gateway_for(mind=mind, **options) as gateway:
        yield gateway


async def sweep(gateway: Gateway, number: int) -> None:
    """Ask about every key once, some at a time; each has to be answered."""
    left = iter(range(len(KEYS)))

    async def some() -> None:
        for key in left:
            body = {"model": MODEL, "prompt": KEYS[key], "max_tokens": 1}
            names = (f"x-request-id: {key}-{number}", f"x-session-id: {key}")
            answer = await ask(gateway, post(json.dumps(body).encode(), *names, path="/v1/completions"))
            assert answer.status == 200

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to become true; the whole scenario has a deadline."""
    while not holds():
        await asyncio.sleep(0.01)


class Load:
    """Sweeps without end; `swept` waits for one that has begun later than that."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self._gateways, self._done = gateways, 0
        self._task = asyncio.create_task(self._run())

    async def swept(self) -> None:
        enough = self._done + 2
        await until(lambda: self._task.done() or self._done >= enough)
        assert not self._task.done(), self._task.exception()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.gather(*(sweep(gateway, self._done) for gateway in self._gateways))
            self._done += 1


def homes(log: Path) -> dict[frozenset[str], Homes]:
    """Where each key lives, by who was ready: whom a policy weighed if it tells, else where it was sent."""
    found: dict[frozenset[str], Homes] = {}
    with log.open("rb") as lines:
        told = Retelling(Recording(lines))
        for entry, _ in told:
            ready = frozenset(
                name for name, one in told.controller.state.replicas.items() if one.phase == "ready"
            )
            for action in entry.actions:
                if isinstance(action, Dispatch) and action.attempt == 1:
                    weighed = () if action.reasons is UNSET else action.reasons.weighed
                    home = frozenset(one.replica for one in weighed) or frozenset([action.replica])
                    key = action.request_id.partition("-")[0]
                    assert found.setdefault(ready, {}).setdefault(key, home) == home
    assert told.first_difference is None
    return found


def most_moved(share: float) -> float:
    """How many keys may move if each does with this probability."""
    return len(KEYS) * share + MARGIN * sqrt(len(KEYS) * share * (1 - share))


def check(log: Path, *, each: int) -> None:
    """Compare what is with what has to be, for keys with so many homes each."""
    by_ready = homes(log)
    old, came, went = by_ready[OLD], by_ready[CAME], by_ready[WENT]
    assert len(old) == len(came) == len(went) == len(KEYS)
    assert {len(home) for home in (*old.values(), *came.values(), *went.values())} == {each}
    moved = Counter(came=sum(old[key] != came[key] for key in old))
    moved["went"] = sum(came[key] != went[key] for key in old)
    # One of four replicas has a quarter of the keys; who has two homes has it among them more often.
    share = 1 - (1 - 1 / 4) ** each
    assert 0 < moved["came"] <= most_moved(share)
    assert 0 < moved["went"] <= most_moved(share)
    for key in old:
        assert came[key] - old[key] <= {"d"}, "only the one that came takes keys"
        assert came[key] == went[key] or "a" in came[key], "only the one that went gives keys away"
        assert came[key] - {"a"} <= went[key]


def engines(stack: ExitStack, folder: Path, ports: dict[str, int], names: str) -> Iterator[Any]:
    argvs = [command(folder, "--port", str(ports[name])) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        yield from pool.map(lambda argv: stack.enter_context(started(argv)), argvs)


def test_an_engine_that_comes_and_one_that_goes_under_load_move_only_their_share_of_keys(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path)
    ports = {name: free_port() for name in "abcd"}
    logs = {policy: tmp_path / f"{policy}.jsonl" for policy in ("session_affinity", "dualmap")}

    async def scenario(stack: ExitStack) -> None:
        first, *_ = await asyncio.to_thread(lambda: list(engines(stack, folder, ports, "abc")))
        async with (
            before("session_affinity", ports, logs["session_affinity"]) as one,
            before("dualmap", ports, logs["dualmap"]) as other,
        ):
            both = [one, other]
            load = Load(both)
            await asyncio.to_thread(lambda: list(engines(stack, folder, ports, "d")))
            await load.swept()
            await until(lambda: all(each.fleet.ready == 4 for each in both))
            await load.swept()
            first.process.send_signal(signal.SIGTERM)
            await until(lambda: all(each.fleet.ready == 3 for each in both))
            await load.swept()
            await load.end()

    with ExitStack() as stack:
        uvloop.run(asyncio.wait_for(scenario(stack), PATIENCE_S))
    check(logs["session_affinity"], each=1)
    check(logs["dualmap"], each=2)

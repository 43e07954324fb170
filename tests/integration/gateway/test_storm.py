"""Everything at once: whatever engines and clients do to each other, nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from millrace.control import Controller
from millrace.control.log import replay
from millrace.gateway.app import Gateway
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import caller, chat, controller, gateway_for, post, run, until

SCRIPTS = (
    Script(),
    Script(tokens=20, tpot_s=0.002),
    Script(ttft_s=0.02),
    Script(split_bytes=7),
    Script(hang_up=True),
    Script(until_close=True),
    Script(status=503, headers=("retry-after: 1",)),
    Script(status=400),
    Script(breaks="reset"),
    Script(breaks="garbage"),
    Script(breaks="silence"),
    Script(breaks="reset", break_after=1, tpot_s=0.002),
    Script(breaks="close", break_after=2),
    Script(breaks="silence", break_after=1),
)


async def misbehave(gateway: Gateway, seed: int) -> list[int]:
    """One client's life: some requests, some of which it does not wait for; return the statuses it saw."""
    chance, statuses = Random(seed), []
    for number in range(6):
        async with caller(gateway) as one:
            request = chat(f"x-request-id: {seed % 3}-{number}", stream=chance.random() < 0.5)
            await one.say(request[: chance.choice((5, 60, len(request), len(request), len(request)))])
            try:
                answer = await asyncio.wait_for(one.answer(), chance.choice((0.01, 0.1, 0.5)))
            except (TimeoutError, asyncio.IncompleteReadError):
                continue
            assert answer.whole
            statuses.append(answer.status)
    return statuses


async def talk_nonsense(gateway: Gateway) -> list[int]:
    """A client whose bodies mean nothing, and who waits to hear so; return the statuses it saw."""
    async with caller(gateway) as one:
        return [(await one.ask(post(b'{"model":'))).status for _ in range(6)]


async def change_weather(engines: tuple[FakeEngine, ...], seed: int) -> None:
    """Let every engine do something else every few milliseconds, and one of them go down now and then."""
    chance = Random(seed)
    while True:
        for engine in engines:
            engine.script = chance.choice(SCRIPTS)
        await asyncio.sleep(0.01)
        if chance.random() < 0.1:
            await engines[0].stop()
            await asyncio.sleep(0.03)
            await engines[0].start()


def all_is_quiet(gateway: Gateway, mind: Controller) -> bool:
    """Whether nothing is in flight on either side."""
    busy = [replica.in_flight for replica in mind.state.replicas.values()]
    return not gateway.exchanges and not mind.state.flights and not any(busy)


def test_a_storm_leaves_nothing_behind_and_replays_bit_for_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        mind = controller(max_hold_s=0.2, max_held=20)
        engines = FakeEngine("a"), FakeEngine("b"), FakeEngine("c")
        settings: dict[str, Any] = {
            "first_byte_timeout_s": 0.3,
            "stall_timeout_s": 0.3,
            "event_log": tmp_path / "log",
        }
        async with (
            engines[0],
            engines[1],
            engines[2],
            gateway_for(*engines, mind=mind, **settings) as gateway,
        ):
            weather = asyncio.create_task(change_weather(engines, 7))
            lives = [misbehave(gateway, seed) for seed in range(60)]
            statuses = await asyncio.gather(*lives, talk_nonsense(gateway))
            weather.cancel()
            await engines[0].stop()
            await engines[0].start()
            assert {200, 400} <= set().union(*statuses) <= {200, 400, 404, 429, 502, 503}
            await until(lambda: all_is_quiet(gateway, mind), "nothing is in flight")
            await until(lambda: not any(engine.live for engine in engines), "no engine works for nobody")
            for engine in engines:
                engine.script = Script()
            await until(lambda: gateway.fleet.ready == 3, "all engines are ready")
            async with caller(gateway) as one:
                for _ in range(6):
                    assert (await one.ask(chat())).status == 200

    run(scenario())
    replayed = replay((tmp_path / "log").read_bytes().splitlines())
    assert replayed.first_difference is None
    assert replayed.identical > 100
    assert not caplog.records, "an exception escaped into the event loop"

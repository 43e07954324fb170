"""An engine is killed under load: nothing hangs or is lost without a word, and it is used again once back."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import pytest

from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned
from millrace.control.log import read_entry, replay
from millrace.core.event import Dispatch
from tests.e2e.fleet import ready, two_engines, until
from tests.e2e.relay import Relay

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def planned(count: int, *, prefix: str, gap_s: float, max_tokens: int) -> list[Planned]:
    """Streams of a fixed length, due `gap_s` apart."""
    return [
        Planned(
            id=f"{prefix}-{n}",
            scheduled_s=n * gap_s,
            group=0,
            prompt=(300 + n, 301, 302),
            max_tokens=max_tokens,
            blocks=(),
            block_tokens=16,
            body=msgspec.json.encode(
                {
                    "model": "demo",
                    "prompt": [300 + n, 301, 302],
                    "max_tokens": max_tokens,
                    "ignore_eos": True,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
            ),
        )
        for n in range(count)
    ]


async def test_without_failover_a_killed_engine_costs_only_the_streams_it_had_begun(tmp_path: Path) -> None:
    fleet_of_two = two_engines(tmp_path, options=("--failover", "off"))
    async with fleet_of_two as fleet, aiohttp.ClientSession() as session:
        url, victim = fleet.gateway.url, fleet.engines[1]
        under_way = Load(url, planned(24, prefix="long", gap_s=0.02, max_tokens=300), timeout_s=60)
        playing = asyncio.create_task(under_way.run())

        async def some_have_begun() -> bool:
            return under_way.sent == 24

        await until(some_have_begun)
        await fleet.kill(victim)
        after = await Load(url, planned(8, prefix="after", gap_s=0.05, max_tokens=8), timeout_s=60).run()
        sent = await playing

        check_under_way(sent)
        assert Counter(o.status for o in after.outcomes) == {"completed": 8}
        assert {o.replica for o in after.outcomes} == {"one"}

        await fleet.restart(victim)
        await until(lambda: ready(session, url, 2))
        again = await Load(url, planned(8, prefix="again", gap_s=0.05, max_tokens=8), timeout_s=60).run()
        assert Counter(o.status for o in again.outcomes) == {"completed": 8}
        assert {o.replica for o in again.outcomes} == {"one", "two"}

    replayed = replay((tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True))
    assert replayed.identical == replayed.actions >= 40


def check_under_way(sent: Sent) -> None:
    """Streams on the living engine are whole; those begun on the dead one end with an in-band error."""
    broken = [o for o in sent.outcomes if o.status == "failed"]
    assert len(sent.outcomes) == 24
    assert all(o.status in ("completed", "failed") for o in sent.outcomes)
    assert broken, "the engine was killed too late to break a stream"
    assert all(o.first_token_s is not None for o in broken), "without a first byte it is tried elsewhere"
    assert all((o.error or "").startswith("in-band") for o in broken)
    assert all(o.output_tokens == 300 for o in sent.outcomes if o.status == "completed")


async def test_a_killed_engine_costs_no_request_whose_answer_nobody_had_seen(tmp_path: Path) -> None:
    async with Relay() as relay, two_engines(tmp_path, relay) as fleet:
        begun = Load(fleet.gateway.url, planned(12, prefix="q", gap_s=0.0, max_tokens=40), timeout_s=60)
        playing = asyncio.create_task(begun.run())

        async def the_second_has_begun_all_of_its_own() -> bool:
            return relay.kept == 6

        await until(the_second_has_begun_all_of_its_own)
        await fleet.kill(fleet.engines[1])
        sent = await playing
        assert Counter((o.status, o.replica, o.output_tokens) for o in sent.outcomes) == {
            ("completed", "one", 40): 12
        }

    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    actions = [action for n, line in enumerate(lines[1:], 2) for action in read_entry(line, n).actions]
    sends = Counter((a.replica, a.attempt) for a in actions if isinstance(a, Dispatch))
    assert sends == {("one", 1): 6, ("two", 1): 6, ("one", 2): 6}
    assert replay(lines).identical == len(actions)


async def test_no_request_hangs_when_every_engine_is_gone(tmp_path: Path) -> None:
    async with two_engines(tmp_path) as fleet, aiohttp.ClientSession() as session:
        url = fleet.gateway.url
        for engine in fleet.engines:
            await fleet.kill(engine)
        await until(lambda: ready(session, url, 0))
        async with session.get(f"{url}/readyz") as response:
            assert response.status == 503
        body = {"model": "demo", "prompt": "x = ", "max_tokens": 2}
        asked = asyncio.create_task(session.post(f"{url}/v1/completions", json=body))
        await fleet.restart(fleet.engines[0])
        response = await asyncio.wait_for(asked, 90)
        assert response.status == 200, "a held request is answered by the engine that came back"
        assert (await response.json())["usage"]["completion_tokens"] == 2

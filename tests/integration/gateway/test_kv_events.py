"""The gateway knows what is in an engine's prefix cache from what the engine says, whatever gets lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.blocks import chain_contents, contents_of
from millrace.gateway.app import Gateway
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.testing import fakes
from millrace.testing.engine import FakeEngine
from tests.integration.gateway.publisher import Publisher
from tests.integration.gateway.world import ask, chat, controller, gateway_for, get, run, until

SIZE = 4


def stored(first: int, blocks: int = 1, *, parent: int | None = None) -> dict[str, Any]:
    """Blocks in vLLM's words; a block's name is its number, and so are all its tokens."""
    names = list(range(first, first + blocks))
    tokens = [name for name in names for _ in range(SIZE)]
    fixed = {"type": "BlockStored", "block_size": SIZE, "lora_id": None, "medium": "GPU", "lora_name": None}
    return {"block_hashes": names, "parent_block_hash": parent, "token_ids": tokens, **fixed}


def removed(*names: int) -> list[Any]:
    """The same in older words."""
    return ["BlockRemoved", list(names), "GPU"]


class World:
    """A gateway, an engine and its publisher."""

    def __init__(self, publisher: Publisher, mind: Controller, engine: FakeEngine, gateway: Gateway) -> None:
        self.publisher, self.mind, self.engine, self.gateway = publisher, mind, engine, gateway

    @property
    def count(self) -> Counter[str]:
        """What became of the batches."""
        return self.gateway.metrics.kv_batches.get("a", Counter())

    def known(self, *names: int) -> int:
        """How many tokens of a prompt of these blocks the gateway believes to be there."""
        tokens = [name for name in names for _ in range(SIZE)]
        blocks = chain_contents(contents_of(tokens, SIZE))
        prompt = fakes.request(blocks=blocks, block_tokens=SIZE, prompt_tokens=1000)
        return self.mind.state.replicas["a"].prefix.matched_tokens(prompt)

    async def hears(self, *names: int, tokens: int) -> None:
        """Wait until so much of a prompt is believed to be there."""
        await until(lambda: self.known(*names) == tokens, f"{tokens} tokens of {names} are known")

    async def says_until_heard(self, name: int) -> None:
        """Let the publisher say the same until the gateway's subscription has reached it."""
        while not self.known(name):
            await self.publisher.say(stored(name))
            await asyncio.sleep(0.01)


@asynccontextmanager
async def world(publisher: Publisher, *, heard: bool = True) -> AsyncIterator[World]:
    """Serve in front of one engine; by then its publisher has been `heard`."""
    name, endpoint = Endpoint.parse(f"a={publisher.address}")
    mind = controller(prefix_knowledge="events")
    async with (
        FakeEngine("a") as engine,
        gateway_for(engine, mind=mind, kv_events={name: endpoint}, block_tokens=SIZE) as gateway,
    ):
        made = World(publisher, mind, engine, gateway)
        if heard:
            await until(lambda: made.count["afresh"], "the publisher is there")
            await made.says_until_heard(900)
        yield made


def test_what_enters_and_leaves_the_cache_is_known() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1, 3))
            await here.hears(1, 2, 3, tokens=12)
            await publisher.say(stored(9, parent=2), removed(3))
            await here.hears(1, 2, 9, tokens=12)
            assert here.known(1, 2, 3) == 8
            await publisher.say({"type": "AllBlocksCleared"})
            await here.hears(1, tokens=0)

    run(scenario())


def test_who_comes_late_is_told_what_was_said_before() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher:
            await publisher.say(stored(1, 3))
            async with world(publisher, heard=False) as here:
                await here.hears(1, 2, 3, tokens=12)

    run(scenario())


def test_a_gap_is_filled_from_what_is_repeated() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2), lost=True)
            await publisher.say(removed(2), lost=True)
            await publisher.say(stored(3, parent=1))
            await here.hears(1, 3, tokens=8)
            assert here.known(1, 2) == 4
            assert here.known(900) == SIZE
            assert here.count["replayed"] >= 2

    run(scenario())


def test_what_is_lost_at_last_is_noticed_in_silence() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2), lost=True)
            await here.hears(1, 2, tokens=8)

    run(scenario())


@pytest.mark.parametrize("replays", [True, False])
def test_a_gap_that_cannot_be_filled_begins_a_new_index(replays: bool) -> None:
    async def scenario() -> None:
        async with Publisher(replays=replays) as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2))
            await here.hears(1, 2, tokens=8)
            await publisher.say(removed(1), lost=True)
            publisher.forgets_before = publisher.number
            await publisher.say(stored(5))
            await here.hears(5, tokens=4)
            assert here.known(1, 2) == 0
            assert here.count["dropped"] == 1

    run(scenario())


def test_who_is_asked_in_vain_is_not_asked_again_soon() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            publisher.mute = True
            await publisher.say(stored(1), lost=True)
            await publisher.say(stored(2))
            await here.hears(2, tokens=4)
            asked = len(publisher.asked)
            await publisher.say(stored(3), lost=True)
            await publisher.say(stored(4))
            await here.hears(4, tokens=4)
            assert here.known(2) == 0
            assert len(publisher.asked) == asked
            assert (here.count["unanswered"], here.count["dropped"]) == (1, 2)

    run(scenario())


@pytest.mark.parametrize("replays", [True, False])
def test_a_publisher_that_begins_anew_begins_a_new_index(replays: bool) -> None:
    async def scenario() -> None:
        async with Publisher(replays=replays) as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2))
            await here.hears(1, 2, tokens=8)
            begun = here.count["afresh"]
            await publisher.restart()
            await until(lambda: here.count["afresh"] > begun, "the new publisher is there")
            await here.says_until_heard(5)
            assert here.known(1, 2) == 0

    run(scenario())


def test_an_engine_that_was_lost_has_an_empty_cache_until_it_says_otherwise() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2))
            await here.hears(1, 2, tokens=8)
            publisher.said.clear()
            await here.engine.stop()
            await here.hears(1, 2, tokens=0)
            await here.engine.start()
            await publisher.say(stored(7))
            await here.hears(7, tokens=4)
            assert here.known(1, 2) == 0

    run(scenario())


GARBAGE = [
    (),
    (b"",),
    (b"", b"\0" * 8),
    (b"", b"\0" * 7, b"payload"),
    (b"", b"\0" * 8, b"payload", b"more"),
]


@pytest.mark.parametrize("frames", GARBAGE)
def test_frames_that_make_no_sense_are_counted_and_forgotten(frames: tuple[bytes, ...]) -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1))
            await publisher.send(*(frames or (b"",)))
            await publisher.say(stored(2, parent=1))
            await here.hears(1, 2, tokens=8)
            assert here.count["garbage"] == 1

    run(scenario())


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x93\xcb", b"\xff" * 100, b"\x92\x01\x91\x92\xacBlockRemoved\x07"]
)
def test_a_batch_that_cannot_be_read_begins_a_new_index(payload: bytes) -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1))
            await publisher.say_bytes(payload)
            await publisher.say(stored(5))
            await here.hears(5, tokens=4)
            assert here.known(1) == 0
            assert (here.count["garbage"], here.count["dropped"]) == (1, 1)

    run(scenario())


def test_a_flood_is_followed_while_clients_are_served() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            for number in range(3000):
                await publisher.say(stored(10_000 + number))
            assert (await ask(here.gateway, chat())).status == 200
            await here.hears(12_999, tokens=4)
            assert here.known(10_000) == 4

    run(scenario())


def test_the_metrics_page_tells_how_it_goes() -> None:
    async def scenario() -> None:
        async with Publisher() as publisher, world(publisher) as here:
            await publisher.say(stored(1, 2), stored(3) | {"medium": "EXTERNAL"})
            await here.hears(1, 2, tokens=8)
            page = (await ask(here.gateway, get("/metrics"))).body.decode()
            assert 'millrace_kv_event_batches_total{replica="a",outcome="followed"}' in page
            assert 'millrace_kv_events_ignored_total{replica="a",reason="other_memory"} 1.0' in page
            sizes = [
                line
                for line in page.splitlines()
                if line.startswith('millrace_prefix_index_bytes{replica="a"}')
            ]
            assert float(sizes[0].split()[1]) > 0

    run(scenario())

"""vLLM says what its prefix cache holds, and the gateway knows exactly that, also what was forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from millrace.control import Controller, ControlSettings
from millrace.core.blocks import chain_contents, contents_of
from millrace.core.draw import draw
from millrace.gateway.app import Gateway
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.policies import load
from millrace.testing import fakes
from tests.engines.fleet import Client, Publishing, client, until
from tests.engines.servers import BLOCK_TOKENS as SIZE
from tests.engines.servers import KV_TOPIC

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

CONTROL = ControlSettings(prefix_knowledge="events", prefix_ttl_s=0.001)  # only the engine is believed


class World:
    """A gateway in this process that listens to one engine, and clients of both."""

    def __init__(self, mind: Controller, gateway: Gateway, front: Client, engine: Client) -> None:
        self.mind, self.gateway, self.front, self.engine = mind, gateway, front, engine

    def believed(self, tokens: list[int]) -> int:
        """How many tokens of a prompt the gateway believes to be cached."""
        blocks = chain_contents(contents_of(tokens, SIZE))
        request = fakes.request(blocks=blocks, block_tokens=SIZE, prompt_tokens=len(tokens))
        return self.mind.state.replicas["vllm"].prefix.matched_tokens(request)

    async def true(self, tokens: list[int]) -> int:
        """How many of them the engine finds; asking lets it hold all of them."""
        answer = await self.engine.complete(tokens, max_tokens=1)
        cached: int = (answer.usage[0]["prompt_tokens_details"] or {}).get("cached_tokens", 0)
        return cached

    async def hears(self, marker: int) -> None:
        """Wait until the engine has spoken of all it did: of a prompt of ours, which it computes last."""
        tokens = [4 + marker % 4000] * SIZE + [5]
        await self.true(tokens)
        await until(lambda: self._knows(tokens), "the engine spoke of all it did")

    async def _knows(self, tokens: list[int]) -> bool:
        return self.believed(tokens) == SIZE


@asynccontextmanager
async def world(engine: Publishing) -> AsyncIterator[World]:
    """Serve in front of one engine."""
    await engine.up()
    told = Endpoint(f"tcp://127.0.0.1:{engine.events}", f"tcp://127.0.0.1:{engine.replay}", KV_TOPIC)
    settings = GatewaySettings(
        backends=(f"vllm={engine.process.url}",),
        port=0,
        kv_events={"vllm": told},
        block_tokens=SIZE,
        tokenize_within_s=10.0,
    )
    mind = Controller(load("routing", "round_robin"), load("queueing", "fcfs"), CONTROL)
    async with (
        listening(settings, mind) as gateway,
        client(f"http://127.0.0.1:{gateway.port}") as front,
        client(engine.process.url) as direct,
    ):
        yield World(mind, gateway, front, direct)


def prompts() -> list[list[int]]:
    """Conversations that begin alike, more of them than 64 blocks hold."""
    begun = [[4 + draw("begin", talk, n) % 4000 for n in range(70)] for talk in range(4)]
    return [
        begun[talk % 4] + [4 + draw("turn", talk, n) % 4000 for n in range(draw("length", talk) % 250)]
        for talk in range(24)
    ]


async def test_the_gateway_knows_exactly_what_vllm_holds(vllms: list[Publishing]) -> None:
    async with world(vllms[0]) as here:
        for tokens in prompts():
            assert (await here.front.complete(tokens, max_tokens=2)).status == 200
        known = [await compared(here, n, tokens) for n, tokens in enumerate(prompts()[::3])]
        assert 0 < sum(known) < sum(len(tokens) // SIZE * SIZE for tokens in prompts()[::3])
        heard = here.gateway.metrics.kv_batches["vllm"]
        assert heard["followed"] > heard["replayed"]
        assert heard["garbage"] == heard["dropped"] == 0
        assert here.gateway.metrics.kv_ignored["vllm"] == {}


async def test_who_comes_late_is_told_by_the_replay(vllms: list[Publishing]) -> None:
    tokens = prompts()[1]
    async with client(vllms[0].process.url) as engine:
        assert (await engine.complete(tokens, max_tokens=2)).status == 200
    async with world(vllms[0]) as here:
        await until(lambda: _replayed(here), "what was said before is told again")
        await here.hears(2000)
        assert here.believed(tokens) == len(tokens) // SIZE * SIZE


async def test_a_text_is_hashed_in_the_tokens_that_vllm_makes_of_it(vllms: list[Publishing]) -> None:
    async with world(vllms[0]) as here:
        answer = await here.front.chat("def f(x):\n" * 20, max_tokens=1, return_token_ids=True)
        await here.hears(2001)
        assert here.gateway.metrics.tokenized == {"asked": 1}
        assert here.believed(answer.prompt) == len(answer.prompt) // SIZE * SIZE > 0


async def compared(here: World, number: int, tokens: list[int]) -> int:
    """Return what is believed of a prompt, after comparing it with what vLLM finds."""
    await here.hears(number)
    believed = here.believed(tokens)
    # The last token is always computed, so the block that it is in is never counted.
    assert await here.true(tokens) == min(believed, (len(tokens) - 1) // SIZE * SIZE)
    return believed


async def _replayed(here: World) -> bool:
    return "vllm" in (counts := here.gateway.metrics.kv_batches) and counts["vllm"]["replayed"] > 0

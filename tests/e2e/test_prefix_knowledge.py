"""Three engines say what is in their caches, and the gateway knows exactly that, also what was forgotten."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop

from millrace.control import Controller, ControlSettings
from millrace.control.prefixes import SentPrefixes
from millrace.core.blocks import chain_contents, contents_of
from millrace.core.draw import draw
from millrace.core.event import Action, Arrived, Event
from millrace.core.request import Request
from millrace.gateway.app import Gateway
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.policies import load
from millrace.testing import fakes
from tests.integration.engine.process import Engine, command, save_model, started
from tests.integration.gateway.world import ask, post

SIZE = 4  # tokens in a block; each engine has 64 of them
NAMES = ("a", "b", "c")
PATIENCE_S = 100.0
CONTROL = ControlSettings(prefix_knowledge="events", prefix_ttl_s=0.001)  # only engines are believed


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Listener(Controller):
    """Remembers what arrived."""

    def __init__(self, *policies: Any) -> None:
        super().__init__(*policies)
        self.arrived: list[Request] = []

    def on(self, event: Event) -> list[Action]:
        """Decide as always."""
        if isinstance(event, Arrived):
            self.arrived.append(event.request)
        return super().on(event)


class World:
    """The engines by name, and the gateway in front of them."""

    def __init__(self, engines: dict[str, Engine], mind: Listener, gateway: Gateway) -> None:
        self.engines, self.mind, self.gateway = engines, mind, gateway
        self._markers = 0

    async def send(self, tokens: list[int]) -> str:
        """Send a prompt to whomever the policy chooses; return who that was."""
        body = b'{"model":"tiny","max_tokens":2,"prompt":%b}' % str(tokens).encode()
        answer = await ask(self.gateway, post(body, path="/v1/completions"))
        assert answer.status == 200, answer.body
        return answer.fields["x-millrace-replica"]

    def believed(self, name: str, tokens: list[int]) -> int:
        """How many tokens of a prompt the gateway believes an engine to hold."""
        return self.mind.state.replicas[name].prefix.matched_tokens(prompt(tokens))

    async def true(self, name: str, tokens: list[int]) -> int:
        """How many of them the engine finds; asking lets it hold all of them."""
        body = {"model": "tiny", "prompt": tokens, "max_tokens": 1}
        usage = (await asyncio.to_thread(self.engines[name].post, "/v1/completions", body))["usage"]
        cached: int = usage["prompt_tokens_details"]["cached_tokens"]
        return cached

    async def rests(self, name: str) -> None:
        """Wait until an engine has spoken of all it did: of a prompt of ours, which it computes last."""
        self._markers += 1
        marker = [7, 7, 7, self._markers % 60, self._markers // 60, 7, 7, 7]
        await self.true(name, marker)
        await _until(lambda: self.believed(name, marker) == len(marker), "the engine spoke of all it did")


def prompt(tokens: list[int]) -> Request:
    """A prompt as the gateway describes it."""
    blocks = chain_contents(contents_of(tokens, SIZE))
    return fakes.request(blocks=blocks, block_tokens=SIZE, prompt_tokens=len(tokens))


async def _until(condition: Callable[[], object], what: str) -> None:
    until_s = monotonic() + PATIENCE_S / 2
    while not condition():
        assert monotonic() < until_s, f"never happened: {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Start it all."""
    ports = _free_ports(2 * len(NAMES))
    published = [f"tcp://127.0.0.1:{port}" for port in ports]
    told = dict(zip(NAMES, zip(published[::2], published[1::2], strict=True), strict=True))
    with ExitStack() as held:
        options = [("--kv-events", events, "--kv-replay", replay) for events, replay in told.values()]
        starts = [asyncio.to_thread(held.enter_context, started(command(folder, *one))) for one in options]
        engines = dict(zip(NAMES, await asyncio.gather(*starts), strict=True))
        settings = GatewaySettings(
            backends=tuple(f"{name}={engine.url}" for name, engine in engines.items()),
            port=0,
            kv_events={name: Endpoint(*addresses) for name, addresses in told.items()},
            block_tokens=SIZE,
            tokenize_within_s=10.0,
        )
        mind = Listener(load("routing", "two_choices"), load("queueing", "fcfs"), CONTROL)
        async with listening(settings, mind) as gateway:
            yield World(engines, mind, gateway)


def _prompts() -> list[list[int]]:
    """Conversations that begin alike, more of them than three small caches hold."""
    begun = [[draw("begin", talk, n) % 60 for n in range(24)] for talk in range(4)]
    return [
        begun[talk % 4] + [draw("turn", talk, n) % 60 for n in range(draw("length", talk) % 60)]
        for talk in range(40)
    ]


def test_the_gateway_knows_exactly_what_the_engines_hold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(save_model(tmp_path)) as here:
            prompts = _prompts()
            sent = {name: SentPrefixes(1 << 20) for name in NAMES}
            for tokens in prompts:
                sent[await here.send(tokens)].remember(prompt(tokens))
            forgotten = await _compare(here, prompts, sent)
            assert forgotten, "the caches are too small for all that was sent"
            await _chats(here)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))


async def _compare(here: World, prompts: list[list[int]], sent: dict[str, SentPrefixes]) -> int:
    """Ask every engine for every eighth prompt; return how often what was sent was not there any more."""
    forgotten = 0
    for name in NAMES:
        for tokens in prompts[::8]:
            await here.rests(name)
            believed = here.believed(name, tokens)
            true = await here.true(name, tokens)
            # The last token is always computed, so the block that it is in is never counted.
            assert true == min(believed, (len(tokens) - 1) // SIZE * SIZE)
            forgotten += sent[name].matched_tokens(prompt(tokens)) > believed
    return forgotten


async def _chats(here: World) -> None:
    """A chat is hashed in the tokens that the engine makes of it, so what it left behind is recognised."""
    messages = [{"role": "user", "content": "What did the miller say to the mill?"}]
    body = msgspec.json.encode({"model": "tiny", "max_tokens": 1, "messages": messages})
    answer = await ask(here.gateway, post(body))
    name = answer.fields["x-millrace-replica"]
    request = here.mind.arrived[-1]
    told = here.engines[name].post("/tokenize", {"model": "tiny", "messages": messages})["tokens"]
    assert request.blocks == prompt(told).blocks
    assert here.gateway.metrics.tokenized == {"asked": 1}
    await here.rests(name)
    assert here.believed(name, told) == len(told) // SIZE * SIZE

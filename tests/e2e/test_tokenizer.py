"""The gateway makes the tokens that the engine makes, and so it knows exactly what the engine will find."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
import uvloop

from millrace.control import ControlSettings
from millrace.data import demo_model
from millrace.engine.tokenizing import PromptTokenizer
from millrace.gateway.app import Gateway
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.policies import load
from tests.e2e.test_prefix_knowledge import Listener, _free_ports, _until
from tests.integration.engine.process import Engine, started
from tests.integration.gateway.world import ask, post

SIZE = 16
PATIENCE_S = 100.0
CONTROL = ControlSettings(prefix_knowledge="events", prefix_ttl_s=0.001)  # only the engine is believed
TEXTS = [
    "def add(one, other):\n    return one + other\n",
    "",
    "    # 1234567890 + 3.14e-5 isn't 'ça'  \t\n\n  return x\n",
    'async def naïve_日本語(x):\n    """🦊👩‍👩‍👧 e\u0301 \u202eabc\u202c \u0000 \U0001f9ff"""\n',
    "<|endoftext|> <s> </s> [INST]",
    "for i in range(10):\n\tprint(i)\n" * 200,
]
TOOL = {"type": "function", "function": {"name": "grep", "parameters": {"type": "object"}}}


def questions() -> list[dict[str, Any]]:
    """What a client asks of `/v1/completions` and `/v1/chat/completions`, and so of `/tokenize`."""
    talks: list[list[dict[str, Any]]] = [[{"role": "user", "content": text}] for text in TEXTS]
    talks.append(
        [{"role": "system", "content": "Ünïcode"}, *talks[3], {"role": "assistant", "content": "ok"}]
    )
    talks.append([{"role": "user", "content": [{"type": "text", "text": text} for text in TEXTS[:3]]}])
    asked: list[dict[str, Any]] = [{"messages": talk} for talk in talks]
    asked += [{"messages": talks[0], "tools": [TOOL]}, {"messages": talks[6], "add_generation_prompt": False}]
    asked += [
        {"messages": talks[0], "add_special_tokens": True},
        {"prompt": "x", "add_special_tokens": False},
    ]
    return asked + [{"prompt": text} for text in TEXTS]


def test_the_same_files_make_the_same_tokens_and_exact_knowledge_without_asking() -> None:
    events, replay = (f"tcp://127.0.0.1:{port}" for port in _free_ports(2))
    argv = [sys.executable, "-m", "millrace", "engine", "--port", "0", "--kv-events", events]
    with started([*argv, "--kv-replay", replay]) as engine:
        uvloop.run(asyncio.wait_for(_scenario(engine, Endpoint(events, replay)), PATIENCE_S))


async def _scenario(engine: Engine, told: Endpoint) -> None:
    tokenizer = PromptTokenizer.load(demo_model())
    for body in questions():
        made = await tokenizer.tokens_of(msgspec.json.encode(body | {"model": "demo"}))
        answer = await asyncio.to_thread(engine.post, "/tokenize", body | {"model": "demo"})
        assert made == answer["tokens"], body
    mind = Listener(load("routing", "two_choices"), load("queueing", "fcfs"), CONTROL)
    settings = GatewaySettings(
        backends=(f"a={engine.url}",),
        port=0,
        kv_events={"a": told},
        block_tokens=SIZE,
        tokenize_within_s=10.0,
    )
    async with listening(settings, mind, tokenizers={"": tokenizer}) as gateway:
        talk = [{"role": "user", "content": TEXTS[-1][:1000]}]
        await _believed_and_found(gateway, mind, "/v1/chat/completions", messages=talk)
        await _believed_and_found(gateway, mind, "/v1/completions", prompt=TEXTS[0] * 9)
        assert gateway.metrics.tokenized == {"asked": 2, "made": 2, "remembered": 2}


async def _believed_and_found(gateway: Gateway, mind: Listener, path: str, **fields: Any) -> None:
    """Ask twice: what the gateway believes to be there the second time is what the engine finds."""

    def believed() -> int:
        return mind.state.replicas["a"].prefix.matched_tokens(mind.arrived[-1])

    for found in (False, True):
        answer = await ask(
            gateway, post(msgspec.json.encode(fields | {"model": "demo", "max_tokens": 1}), path=path)
        )
        assert answer.status == 200, answer.body
        usage, counted = answer.json["usage"], mind.arrived[-1].prompt_tokens
        assert usage["prompt_tokens"] == counted > 5 * SIZE
        # The last token is always computed, so the block that it is in is never counted.
        whole = (counted - 1) // SIZE * SIZE
        assert usage["prompt_tokens_details"]["cached_tokens"] == (whole if found else 0)
        await _until(lambda: believed() == counted // SIZE * SIZE, "the engine told what it holds")  # noqa: B023

"""With a tokenizer the gateway makes tokens of prompts itself, once an engine has said the same."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from millrace.gateway.tokens import Tokenizer
from tests.integration.gateway.test_token_blocks import BLOCKS, TEXT, text, world
from tests.integration.gateway.world import ask, chat, run


class Bytes:
    """Takes every byte for a token, as a fake engine does, or one more, or some time, or nothing."""

    def __init__(self, *, more: int = 0, seconds: float = 0.0, able: bool = True) -> None:
        self._more, self._seconds, self._able = more, seconds, able

    async def tokens_of(self, question: bytes) -> list[int] | None:
        """Return the bytes."""
        await asyncio.sleep(self._seconds)
        body = msgspec.json.decode(question)
        said = body["prompt"] if "prompt" in body else "".join(one["content"] for one in body["messages"])
        return [byte + self._more for byte in said.encode()] if self._able else None


def say(content: str) -> bytes:
    return chat(messages=[{"role": "user", "content": content}])


def test_engines_are_asked_once_for_chats_and_once_for_texts() -> None:
    async def scenario() -> None:
        async with world(tokenizers={"": Bytes()}) as (engine, gateway, arrived):
            for request in (say("one"), say("two"), say(TEXT), text("one"), text("two"), text(TEXT)):
                assert (await ask(gateway, request)).status == 200
            assert [arrived[at].blocks for at in (2, 5)] == [BLOCKS] * 2
            assert engine.asked_for_tokens == 2
            assert gateway.metrics.tokenized == Counter(made=6, asked=2)

    run(scenario())


def test_a_tokenizer_that_differs_is_left_out_where_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with world(tokenizers={"": Bytes(more=1)}) as (engine, gateway, arrived):
            for request in (say("one"), say(TEXT), say("two")):
                assert (await ask(gateway, request)).status == 200
            assert arrived[1].blocks == BLOCKS
            assert engine.asked_for_tokens == 3
            assert gateway.metrics.tokenized == Counter(differs=1, asked=3)

    run(scenario())
    assert capsys.readouterr().err.count("other tokens of a chat for m than its engine") == 1


def test_where_no_engine_can_tell_the_tokenizer_is_believed() -> None:
    async def scenario() -> None:
        async with world(tokenizers={"": Bytes()}) as (engine, gateway, arrived):
            engine.tokenizes = False
            for request in (text("one"), text(TEXT)):
                assert (await ask(gateway, request)).status == 200
            assert arrived[1].blocks == BLOCKS
            assert gateway.metrics.tokenized == Counter(refused=1, nobody=1, made=2)

    run(scenario())


def test_what_only_an_engine_can_tell_it_is_asked_for() -> None:
    async def scenario() -> None:
        async with world(tokenizers={"": Bytes(able=False)}) as (engine, gateway, arrived):
            for request in (text("one"), text(TEXT)):
                assert (await ask(gateway, request)).status == 200
            assert arrived[1].blocks == BLOCKS
            assert engine.asked_for_tokens == 2

    run(scenario())


def test_nobody_waits_long_for_tokens_made_here() -> None:
    async def scenario() -> None:
        slow = {"": Bytes(seconds=60)}
        async with world(tokenizers=slow, tokenize_within_s=0.01) as (engine, gateway, arrived):
            assert (await ask(gateway, text(TEXT))).status == 200
            assert arrived[0].block_tokens != 4
            assert engine.asked_for_tokens == 0
            assert gateway.metrics.tokenized == Counter(late=1)

    run(scenario())


@pytest.mark.parametrize("names", [("m", ""), ("base", "other")])
def test_a_model_has_its_own_tokenizer_or_that_of_the_one_it_adapts(names: tuple[str, str]) -> None:
    async def scenario() -> None:
        own, other = names
        tokenizers: dict[str, Tokenizer] = {own: Bytes(), other: Bytes(more=1)}
        async with world(tokenizers=tokenizers) as (_, gateway, _arrived):
            gateway.fleet.catalogue["m"]["parent"] = "base"
            assert (await ask(gateway, text(TEXT))).status == 200
            assert gateway.metrics.tokenized == Counter(made=1, asked=1)

    run(scenario())


def test_no_tokens_are_made_for_models_that_nobody_serves() -> None:
    async def scenario() -> None:
        async with world(tokenizers={"": Bytes()}) as (engine, gateway, _):
            assert (await ask(gateway, text(TEXT, model="nothing"))).status == 404
            assert engine.asked_for_tokens == 0
            assert gateway.metrics.tokenized == Counter(nobody=1)

    run(scenario())

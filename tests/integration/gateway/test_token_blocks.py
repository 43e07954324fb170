"""Prompts are hashed in blocks of tokens as an engine counts them, unless that takes too long."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.blocks import chain_contents, contents_of, root_of
from millrace.core.event import Action, Arrived, Event
from millrace.core.request import Request
from millrace.gateway.app import Gateway
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import ask, caller, chat, controller, gateway_for, post, run, until

TEXT = "twelve bytes"
BLOCKS = chain_contents(contents_of(list(TEXT.encode()), 4))
LLAMA_CPP = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 13\r\n"
    b'Keep-Alive: timeout=5, max=100\r\n\r\n{"tokens":[]}'
)
"""What it answers to a question that vLLM understands."""


class Listener(Controller):
    """Remembers what arrived."""

    def __init__(self) -> None:
        usual = controller()
        super().__init__(usual.routing, usual.queueing, usual.settings)
        self.arrived: list[Request] = []

    def on(self, event: Event) -> list[Action]:
        """Decide as always."""
        if isinstance(event, Arrived):
            self.arrived.append(event.request)
        return super().on(event)


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[tuple[FakeEngine, Gateway, list[Request]]]:
    """A gateway that hashes blocks of four tokens, and an engine that says which they are."""
    mind = Listener()
    async with FakeEngine("a") as engine:
        engine.tokenizes = True
        patient = {"tokenize_within_s": 10.0, "block_tokens": 4} | settings
        async with gateway_for(engine, mind=mind, **patient) as gateway:
            yield engine, gateway, mind.arrived


def text(prompt: Any, **fields: Any) -> bytes:
    """A completion request."""
    return post(json.dumps({"model": "m", "prompt": prompt, **fields}).encode(), path="/v1/completions")


@pytest.mark.parametrize(
    "request_", [chat(messages=[{"role": "user", "content": TEXT}]), text(TEXT), text([TEXT])]
)
def test_a_prompt_is_hashed_in_the_engines_tokens(request_: bytes) -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            assert (await ask(gateway, request_)).status == 200
            assert (arrived[0].blocks, arrived[0].block_tokens, arrived[0].prompt_tokens) == (BLOCKS, 4, 12)
            assert len(engine.heard) == 1

    run(scenario())


@pytest.mark.parametrize("prompt", [list(TEXT.encode()), [list(TEXT.encode())]])
def test_a_prompt_of_tokens_needs_no_asking(prompt: Any) -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            assert (await ask(gateway, text(prompt))).status == 200
            assert arrived[0].blocks == BLOCKS
            assert engine.asked_for_tokens == 0

    run(scenario())


@pytest.mark.parametrize("prompt", [[TEXT, "another"], [], [7, "seven"], [-1]])
def test_what_is_not_one_prompt_is_hashed_in_bytes(prompt: Any) -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            assert (await ask(gateway, text(prompt))).status == 200
            assert arrived[0].block_tokens != 4
            assert engine.asked_for_tokens == 0

    run(scenario())


@pytest.mark.parametrize("prompt", [b'"\xff"', b'["\xff"]', b"[1e400]"])
def test_a_prompt_that_is_no_text_is_left_to_the_engine(prompt: bytes) -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            engine.script = Script(raw=b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            body = b'{"model": "m", "prompt": %b}' % prompt
            assert (await ask(gateway, post(body, path="/v1/completions"))).status == 400
            assert arrived[0].block_tokens != 4
            assert engine.asked_for_tokens == 0

    run(scenario())


def test_the_same_prompt_is_asked_about_once() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            for _ in range(3):
                assert (await ask(gateway, text(TEXT))).status == 200
            assert [request.blocks for request in arrived] == [BLOCKS] * 3
            assert engine.asked_for_tokens == 1

    run(scenario())


def test_what_decides_on_the_tokens_is_passed_on() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, _):
            for special in (True, False):
                assert (await ask(gateway, text(TEXT, add_special_tokens=special))).status == 200
            assert engine.asked_for_tokens == 2

    run(scenario())


def test_the_prompts_of_an_adapter_have_chains_of_their_own() -> None:
    async def scenario() -> None:
        async with world() as (_, gateway, arrived):
            gateway.fleet.catalogue["m"]["parent"] = "base"
            assert (await ask(gateway, text(TEXT))).status == 200
            assert arrived[0].blocks == chain_contents(contents_of(list(TEXT.encode()), 4), root_of("m"))

    run(scenario())


def test_an_engine_that_takes_too_long_is_not_waited_for_and_left_alone() -> None:
    async def scenario() -> None:
        async with world(tokenize_within_s=0.02) as (engine, gateway, arrived):
            engine.tokenize_s = 60.0
            for _ in range(3):
                assert (await ask(gateway, text(TEXT))).status == 200
            assert {request.block_tokens for request in arrived} == {128}
            assert engine.asked_for_tokens == 1
            assert gateway.metrics.tokenized == {"late": 1, "nobody": 2}

    run(scenario())


def test_an_engine_that_cannot_tell_is_asked_once() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, _):
            engine.tokenizes = False
            for _ in range(2):
                assert (await ask(gateway, text(TEXT))).status == 200
            assert engine.asked_for_tokens == 1
            assert gateway.metrics.tokenized == {"refused": 1, "nobody": 1}

    run(scenario())


def test_the_empty_answer_of_llama_cpp_is_none() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            engine.pages = {"/tokenize": LLAMA_CPP}
            for _ in range(2):
                assert (await ask(gateway, text(TEXT))).status == 200
            assert {(request.block_tokens, request.prompt_tokens) for request in arrived} == {(128, 3)}
            assert gateway.metrics.tokenized == {"refused": 1, "nobody": 1}

    run(scenario())


def test_a_client_that_leaves_meanwhile_sends_nothing_to_an_engine() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            engine.tokenize_s = 0.05
            async with caller(gateway) as impatient:
                await impatient.say(text(TEXT))
                await until(lambda: engine.asked_for_tokens, "the engine is asked")
            await until(lambda: not gateway.exchanges, "the request is over")
            assert (await ask(gateway, text("another"))).status == 200
            assert len(arrived) == len(engine.heard) == 1

    run(scenario())


def test_a_request_that_waits_for_its_tokens_ends_with_the_gateway() -> None:
    async def scenario() -> None:
        async with world() as (engine, gateway, arrived):
            engine.tokenize_s = 60.0
            async with caller(gateway) as patient:
                await patient.say(text(TEXT))
                await until(lambda: engine.asked_for_tokens, "the engine is asked")
                gateway.end_all("the gateway is shutting down")
                assert (await patient.answer()).status == 503
            assert not arrived

    run(scenario())

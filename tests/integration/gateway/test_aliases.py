"""Clients may call a model by other names; its engine hears its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.test_sdk import MESSAGES, client_of
from tests.integration.gateway.world import ask, caller, chat, gateway_for, get, one_engine, post, run

ALIASES: dict[str, Any] = {"gpt-4o-mini": "org/m", "absent": "nowhere"}


def test_an_alias_is_routed_renamed_and_listed() -> None:
    async def scenario() -> None:
        async with (
            FakeEngine("a", models=("org/m",)) as engine,
            gateway_for(engine, aliases=ALIASES) as gateway,
        ):
            answer = await ask(gateway, chat(model="gpt-4o-mini"))
            assert answer.status == 200
            assert [heard.json["model"] for heard in engine.heard] == ["org/m"]
            listed = {card["id"]: card for card in (await ask(gateway, get("/v1/models"))).json["data"]}
            assert listed.keys() == {"org/m", "gpt-4o-mini"}
            assert listed["gpt-4o-mini"] == listed["org/m"] | {"id": "gpt-4o-mini", "root": "org/m"}
            assert (listed["gpt-4o-mini"]["owned_by"], listed["gpt-4o-mini"]["max_model_len"]) == ("a", 8192)
            assert (await ask(gateway, chat(model="absent"))).status == 404
            assert len(engine.heard) == 1

    run(scenario())


def test_an_alias_of_several_models_is_shared_out_and_listed_with_the_shortest_length() -> None:
    async def scenario() -> None:
        llama = FakeEngine("a", models=("llama",))
        qwen = FakeEngine("b", models=("qwen",), max_model_len=4096)
        shares = {"llama": 75.0, "qwen": 25.0}
        async with llama, qwen, gateway_for(llama, qwen, aliases={"chat": shares}) as gateway:
            async with caller(gateway) as one:
                answers = [await one.ask(chat(f"x-request-id: r{n}", model="chat")) for n in range(80)]
                again = [await one.ask(chat(f"x-request-id: r{n}", model="chat")) for n in range(8)]
            counts = Counter(answer.fields["x-millrace-model"] for answer in answers + again)
            assert counts == {"llama": len(llama.heard), "qwen": len(qwen.heard)}
            assert 45 < counts["llama"] < 85
            assert {answer.json["model"] for answer in answers} == {"chat"}
            first = [answer.fields["x-millrace-model"] for answer in answers[:8]]
            assert [answer.fields["x-millrace-model"] for answer in again] == first
            card = (await ask(gateway, get("/v1/models/chat"))).json
            assert (card["root"], card["max_model_len"], card["owned_by"]) == ("llama", 4096, "a")

    run(scenario())


def test_the_catch_all_takes_every_name_that_nobody_serves() -> None:
    async def scenario() -> None:
        async with one_engine(aliases={"*": "m"}) as (engine, gateway), client_of(gateway) as client:
            for name in ("gpt-4o", "claude", "m"):
                done = await client.chat.completions.create(model=name, messages=MESSAGES)
                assert done.model == name
            assert [heard.json["model"] for heard in engine.heard] == ["m", "m", "m"]
            assert [model.id async for model in client.models.list()] == ["m"]

    run(scenario())


@pytest.mark.parametrize("split_bytes", [None, 7])
@pytest.mark.parametrize("until_close", [False, True])
def test_a_stream_calls_its_model_as_the_client_did(split_bytes: int | None, until_close: bool) -> None:
    async def scenario() -> None:
        async with one_engine(aliases={"chat": "m"}) as (engine, gateway), client_of(gateway) as client:
            engine.script = Script(split_bytes=split_bytes, until_close=until_close)
            for options in ({}, {"stream_options": {"include_usage": True}}):
                extra: Any = options
                stream = await client.chat.completions.create(
                    model="chat", messages=MESSAGES, stream=True, **extra
                )
                chunks = [chunk async for chunk in stream]
                assert {chunk.model for chunk in chunks} == {"chat"}
                assert len(chunks) == 3 + len(options)

    run(scenario())


def test_an_answer_may_keep_the_engines_name() -> None:
    async def scenario() -> None:
        async with one_engine(aliases={"chat": "m"}, answer_as_asked=False) as (_, gateway):
            whole = await ask(gateway, chat(model="chat"))
            assert whole.json["model"] == "m"
            stream = await ask(gateway, chat(model="chat", stream=True))
            assert {event["model"] for event in stream.events[:-1]} == {"m"}
            assert stream.fields["x-millrace-model"] == whole.fields["x-millrace-model"] == "m"

    run(scenario())


def test_what_a_model_writes_and_what_engines_say_of_errors_is_left_alone() -> None:
    text = b'{"model":"m","choices":[{"message":{"content":"{\\"model\\":\\"m\\"}"}}]}'
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def scenario() -> None:
        async with one_engine(aliases={"chat": "m"}) as (engine, gateway):
            engine.script = Script(raw=head % (200, len(text)) + text)
            answer = await ask(gateway, chat(model="chat"))
            assert answer.body == text.replace(b'"model":"m"', b'"model":"chat"')
            engine.script = Script(raw=head % (400, len(text)) + text)
            assert (await ask(gateway, chat(model="chat"))).body == text

    run(scenario())


def test_a_name_from_outside_ascii_is_safe_in_a_header() -> None:
    async def scenario() -> None:
        name = "m\r\nx-evil: é"
        engine = FakeEngine("a", models=(name,))
        async with engine, gateway_for(engine, aliases={"chat": name}) as gateway:
            answer = await ask(gateway, chat(model="chat"))
            assert answer.fields["x-millrace-model"] == "m%0D%0Ax-evil:%20%C3%A9"
            assert "x-evil" not in answer.fields
            assert answer.json["model"] == "chat"

    run(scenario())


def test_a_body_under_an_alias_is_otherwise_as_the_client_wrote_it() -> None:
    body = b'{ "messages":[{"role":"user","content":"\\"model\\":1"}] ,"model" : "chat","top_k":5.0}'

    async def scenario() -> None:
        async with one_engine(aliases={"chat": "m"}) as (engine, gateway):
            await ask(gateway, post(body))
            assert engine.heard[0].body == body.replace(b'"chat"', b'"m"')

    run(scenario())

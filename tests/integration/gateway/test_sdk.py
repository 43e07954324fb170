"""OpenAI's own clients, through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from millrace.gateway.app import Gateway
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import gateway_for, one_engine, run

MESSAGES: Any = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def client_of(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """An asynchronous client."""
    base_url = f"http://127.0.0.1:{gateway.port}/v1"
    async with AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        yield client


def test_every_call_of_the_asynchronous_client_works() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway), client_of(gateway) as client:
            chat = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert chat.choices[0].message.content == "0 1 2 "
            assert chat.usage is not None
            assert chat.usage.completion_tokens == 3
            assert chat._request_id is not None
            text = await client.completions.create(model="m", prompt="hi", max_tokens=5)
            assert text.choices[0].text == "0 1 2 "
            vector = await client.embeddings.create(model="m", input="x", encoding_format="float")
            assert vector.data[0].embedding == [0.5] * 3
            assert [model.id async for model in client.models.list()] == ["m"]
            assert (await client.models.retrieve("m")).id == "m"

    run(scenario())


def test_streams_of_the_asynchronous_client_work_with_and_without_usage() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway), client_of(gateway) as client:
            plain = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            chunks = [chunk async for chunk in plain]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "0 1 2 "
            counted = await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            *_, last = [chunk async for chunk in counted]
            assert last.choices == []
            assert last.usage is not None
            assert last.usage.completion_tokens == 3

    run(scenario())


def test_the_synchronous_client_works() -> None:
    def call(port: int) -> None:
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0) as client:
            assert client.chat.completions.create(model="m", messages=MESSAGES).choices
            stream = client.completions.create(model="m", prompt="x", stream=True)
            assert "".join(chunk.choices[0].text for chunk in stream) == "0 1 2 "
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("none")

    async def scenario() -> None:
        async with one_engine() as (_, gateway):
            await asyncio.to_thread(call, gateway.port)

    run(scenario())


@pytest.mark.parametrize(
    ("script", "fields", "error", "code"),
    [
        (Script(), {"model": "none"}, openai.NotFoundError, "model_not_found"),
        (Script(), {"max_tokens": "x"}, openai.BadRequestError, None),
        (Script(status=422), {}, openai.UnprocessableEntityError, None),
        (Script(status=429), {}, openai.RateLimitError, None),
        (Script(breaks="reset"), {}, openai.InternalServerError, "upstream_error"),
    ],
)
def test_errors_are_raised_as_what_they_are(
    script: Script, fields: dict[str, Any], error: type[openai.APIStatusError], code: str | None
) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), client_of(gateway) as client:
            engine.script = script
            create: Callable[..., Any] = client.chat.completions.create
            with pytest.raises(error) as caught:
                await create(**({"model": "m", "messages": MESSAGES} | fields))
            assert caught.value.code == code
            assert caught.value.request_id

    run(scenario())


def test_a_stream_that_breaks_raises_and_never_just_ends() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), client_of(gateway) as client:
            engine.script = Script(breaks="reset", break_after=2)
            stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            chunks = aiter(stream)
            assert [(await anext(chunks)).choices[0].delta.content for _ in range(2)] == ["0 ", "1 "]
            with pytest.raises(openai.APIError, match="closed the connection"):
                await anext(chunks)

    run(scenario())


def test_a_client_that_leaves_its_stream_frees_the_engine() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), client_of(gateway) as client:
            engine.script = Script(tokens=10_000, tpot_s=0.01)
            stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            async for _ in stream:
                break
            await stream.close()
            while not engine.aborted:
                await asyncio.sleep(0.01)
            assert not gateway.exchanges

    run(scenario())


def test_many_clients_at_once_each_get_their_own_answer() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as first, FakeEngine("b") as second, gateway_for(first, second) as gateway:
            async with client_of(gateway) as client:
                first.script = second.script = Script(ttft_s=0.01, tpot_s=0.002)

                async def one(number: int) -> str:
                    stream = await client.chat.completions.create(
                        model="m",
                        messages=MESSAGES,
                        stream=True,
                        extra_headers={"x-request-id": f"r{number}"},
                    )
                    return {chunk.id async for chunk in stream}.pop()

                assert await asyncio.gather(*map(one, range(40))) == [f"r{number}" for number in range(40)]
            assert len(first.heard) == len(second.heard) == 20

    run(scenario())

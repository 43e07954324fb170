"""`/v1/chat/completions` as the OpenAI client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.integration.engine.process import CONTEXT_TOKENS, MODEL, Engine
from tests.unit.engine.texts import END, USER

MESSAGES: list[Any] = [{"role": "user", "content": "Hello, mill!"}]


def chat(engine: Engine, **options: Any) -> ChatCompletion:
    options = {"messages": MESSAGES, "temperature": 0, "max_tokens": 20, **options}
    found: ChatCompletion = engine.client.chat.completions.create(model=MODEL, **options)
    return found


def streamed(engine: Engine, **options: Any) -> list[ChatCompletionChunk]:
    async def read() -> list[ChatCompletionChunk]:
        async with AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
            asked: dict[str, Any] = {"messages": MESSAGES, "temperature": 0, "max_tokens": 20, **options}
            stream = await client.chat.completions.create(model=MODEL, stream=True, **asked)
            return [chunk async for chunk in stream]

    return asyncio.run(read())


def test_an_answer_is_a_message_of_the_assistant(engine: Engine) -> None:
    found = chat(engine)
    assert found.object == "chat.completion"
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content
    assert found.choices[0].finish_reason == "length"


def test_messages_are_written_with_the_checkpoints_template(engine: Engine) -> None:
    options = {"temperature": 0, "max_tokens": 20, "prompt": f"{USER}Hello, mill!{END}"}
    expected = engine.client.completions.create(model=MODEL, **options)  # type: ignore[call-overload]
    assert chat(engine).choices[0].message.content == expected.choices[0].text


def test_content_may_come_in_parts(engine: Engine) -> None:
    parts = [{"type": "text", "text": "Hello, mill!"}]
    found = chat(engine, messages=[{"role": "user", "content": parts}])
    assert found.choices == chat(engine).choices


def test_streamed_deltas_begin_with_the_role_and_join_to_the_message(engine: Engine) -> None:
    *chunks, last = streamed(engine, stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas if delta.role] == [deltas[0].role] == ["assistant"]
    assert "".join(delta.content or "" for delta in deltas) == chat(engine).choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.usage == chat(engine).usage or last.usage


def test_choices_of_a_stream_are_told_apart(engine: Engine) -> None:
    chunks = streamed(engine, n=2, seed=5, temperature=1.5)
    whole = chat(engine, n=2, seed=5, temperature=1.5)
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content


def test_logprobs_tell_tokens_bytes_and_alternatives(engine: Engine) -> None:
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 3, "max_tokens": 5}
    logprobs = chat(engine, **options).choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert len(logprobs.content) == 5
    for one in logprobs.content:
        assert len(one.top_logprobs) == 3
        assert one.logprob == one.top_logprobs[0].logprob
        assert bytes(one.bytes or ()).decode(errors="replace") == one.token
    streams = [chunk.choices[0].logprobs for chunk in streamed(engine, **options)]
    assert [one for part in streams if part for one in part.content or ()] == logprobs.content


def test_an_answer_may_fill_the_context_if_nothing_else_was_said(engine: Engine) -> None:
    found = chat(engine, max_tokens=None, extra_body={"ignore_eos": True})
    assert found.usage
    assert found.usage.total_tokens == CONTEXT_TOKENS


def test_max_completion_tokens_is_the_newer_name_of_max_tokens(engine: Engine) -> None:
    found = chat(engine, max_tokens=None, max_completion_tokens=3)
    assert found.usage
    assert found.usage.completion_tokens == 3

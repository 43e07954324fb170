"""vLLM's server behind the gateway: found, asked, watched, left, killed, and taken over from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from millrace.core.event import Reported
from millrace.core.replica import Report
from millrace.launch import Process
from tests.engines.fleet import Answer, Client, Publishing, client, entries, gateway, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

LONG: dict[str, Any] = {"max_tokens": 100, "ignore_eos": True, "stream": True}
POOL_TOKENS = 64 * 32


@pytest.fixture
async def vllm(vllms: list[Publishing]) -> Process:
    """One that is up."""
    await vllms[0].up()
    return vllms[0].process


async def test_it_is_found_with_its_model(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        status, models = await front.get("/v1/models")
        assert status == 200
        assert '"owned_by":"vllm"' in models
        assert '"max_model_len":512' in models
        assert (await front.get("/readyz"))[0] == 200


async def test_a_stream_says_what_a_whole_answer_says(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        for ask in (front.complete, front.chat):
            whole = await ask("def f(", max_tokens=24)
            stream = await ask("def f(", max_tokens=24, stream=True, stream_options={"include_usage": True})
            assert (whole.status, stream.status, stream.done) == (200, 200, True)
            assert len(whole.text) > 24
            assert (stream.text, stream.finish) == (whole.text, whole.finish)
            assert [one["completion_tokens"] for one in (*whole.usage, *stream.usage)] == [24, 24]
            assert whole.headers["x-millrace-replica"] == "vllm"


async def test_nobody_hears_of_usage_or_token_ids_unless_asked(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        for answer in (await front.complete("x", **LONG), await front.chat("x", **LONG)):
            assert (answer.done, answer.usage, answer.tokens, answer.prompt) == (True, [], [], [])
        assert await front.gauge("millrace_request_output_tokens_sum") == 200


async def test_what_came_from_its_cache_is_counted(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        for _ in range(2):
            await front.complete(list(range(1000, 1080)), max_tokens=1)
        assert await front.gauge("millrace_request_input_tokens_sum") == 160
        assert await front.gauge("millrace_request_cached_tokens_sum") == 64


async def test_the_sdk_gets_a_stream(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        async with AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as sdk:
            stream = await sdk.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "def f("}], max_tokens=8, stream=True
            )
            said = [event.choices[0].delta.content or "" async for event in stream]
        assert len("".join(said)) > 8


async def test_its_load_is_reported(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        await asyncio.gather(*(front.complete(f"def task_{n}(", **LONG) for n in range(12)))
        await until(lambda: _rests(tmp_path), "the load is gone")
    seen = _reports(tmp_path)
    assert max(report.running or 0 for report in seen) == 4
    assert max(report.waiting or 0 for report in seen) >= 4
    free = [report.kv_free_tokens for report in seen if report.kv_free_tokens is not None]
    assert min(free) <= POOL_TOKENS - 4 * 32
    assert free[-1] == POOL_TOKENS


async def test_a_client_that_leaves_frees_its_place(vllm: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front, client(vllm.url) as engine:
        before = await _generated(engine)
        seen = Answer()
        endless = LONG | {"max_tokens": 480}
        asking = asyncio.create_task(front.ask("/v1/chat/completions", seen, messages=HELLO, **endless))
        await until(lambda: _begun(seen), "the stream has begun")
        asking.cancel()
        await until(lambda: _idle(engine), "its place is free")
        assert 0 < await _generated(engine) - before < 480


HELLO = [{"role": "user", "content": "def f("}]


async def test_tokens_said_so_far_are_a_prompt_that_goes_on_with_the_same_answer(
    vllm: Process, tmp_path: Path
) -> None:
    async with gateway(tmp_path, {"vllm": vllm}) as front:
        for ask in (front.complete, front.chat):
            whole = await ask("import os\n", max_tokens=64, ignore_eos=True, return_token_ids=True)
            assert len(whole.tokens) == 64
            for cut in (1, 15, 16, 40, 63):
                told = whole.prompt + whole.tokens[:cut]
                rest = await front.complete(told, max_tokens=64 - cut, ignore_eos=True, return_token_ids=True)
                assert rest.tokens == whole.tokens[cut:]


async def _generated(engine: Client) -> float:
    """Tokens so far. (Answers that were left are in none of its counts of answers.)"""
    return await engine.gauge("vllm:generation_tokens_total")


async def _begun(answer: Answer) -> bool:
    return len(answer.events) > 2


async def _idle(engine: Client) -> bool:
    return await engine.gauge("vllm:num_requests_running") == 0


def _reports(folder: Path) -> list[Report]:
    heard = [entry.event for entry in entries(folder)]
    return [event.report for event in heard if isinstance(event, Reported) and event.report]


async def _rests(folder: Path) -> bool:
    latest = _reports(folder)[-1]
    return (latest.running, latest.kv_free_tokens) == (0, POOL_TOKENS)

"""llama.cpp's own server behind the gateway: found, asked, watched, left and killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from millrace.core.event import Reported
from millrace.launch import Process
from tests.engines import servers
from tests.engines.fleet import START_S, Answer, Client, client, entries, gateway, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

LONG = {"max_tokens": 100, "ignore_eos": True, "stream": True}


async def test_it_is_found_with_its_model(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        status, models = await front.get("/v1/models")
        assert status == 200
        assert '"owned_by":"llamacpp"' in models
        assert (await front.get("/readyz"))[0] == 200


async def test_a_stream_says_what_a_whole_answer_says(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        for ask in (front.complete, front.chat):
            whole = await ask("def f(", max_tokens=24)
            stream = await ask("def f(", max_tokens=24, stream=True, stream_options={"include_usage": True})
            assert (whole.status, stream.status, stream.done) == (200, 200, True)
            assert len(whole.text) > 24
            assert (stream.text, stream.finish) == (whole.text, whole.finish)
            assert [one["completion_tokens"] for one in (*whole.usage, *stream.usage)] == [24, 24]
            assert whole.headers["x-millrace-replica"] == "llama"


async def test_a_chat_does_not_hear_of_usage_unless_it_asked(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        assert (await front.chat("x", max_tokens=4, stream=True)).usage == []
        counted = await front.gauge("millrace_request_output_tokens_sum")
        assert counted == 4


async def test_the_sdk_gets_a_stream(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        async with AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as sdk:
            stream = await sdk.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "def f("}], max_tokens=8, stream=True
            )
            said = [event.choices[0].delta.content or "" async for event in stream]
        assert len("".join(said)) > 8


async def test_more_requests_than_a_connection_may_carry_all_get_answers(
    llama: Process, tmp_path: Path
) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        answers = [await front.complete("x", max_tokens=1) for _ in range(120)]
        assert {answer.status for answer in answers} == {200}


async def test_its_load_is_reported(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front:
        answers = [front.complete(f"def task_{n}(", **LONG) for n in range(10)]
        await asyncio.gather(*answers)
    reports = [e.event.report for e in entries(tmp_path) if isinstance(e.event, Reported) and e.event.report]
    assert max(report.running or 0 for report in reports) == 4
    assert max(report.waiting or 0 for report in reports) >= 1


async def test_a_client_that_leaves_frees_its_slot(llama: Process, tmp_path: Path) -> None:
    async with gateway(tmp_path, {"llama": llama}) as front, client(llama.url) as engine:
        seen = Answer()
        asking = asyncio.create_task(front.ask("/v1/completions", seen, prompt="def f(", **LONG))
        await until(lambda: _begun(seen), "the stream has begun")
        asking.cancel()
        await until(lambda: _idle(engine), "the slot is free")


async def test_a_prompt_of_tokens_goes_on_with_the_same_answer(
    llama: Process, ours: Process, tmp_path: Path
) -> None:
    async with client(ours.url) as first, gateway(tmp_path, {"llama": llama}) as second:
        whole = await first.complete("def f(", max_tokens=48, return_token_ids=True)
        for cut in (1, 7, 20, 47):
            rest = await second.complete(whole.prompt + whole.tokens[:cut], max_tokens=48 - cut)
            assert whole.text.endswith(rest.text)
            assert rest.usage[0]["prompt_tokens"] == len(whole.prompt) + cut


async def test_when_it_dies_answers_nobody_saw_are_tried_elsewhere_and_streams_say_that_they_broke(
    logs: Path, gguf: Path, ours: Process, tmp_path: Path
) -> None:
    victim = Process("victim", servers.llama_cpp(gguf), logs / "victim.log")
    await victim.start(within_s=START_S)
    async with gateway(tmp_path, {"victim": victim, "ours": ours}) as front, asyncio.TaskGroup() as group:
        wholes = [group.create_task(front.complete(f"x = {n}", **LONG | {"stream": False})) for n in range(2)]
        streams = [Answer(), Answer()]
        for n, seen in enumerate(streams):
            group.create_task(front.ask("/v1/completions", seen, prompt=f"y = {n}", **LONG))
        await until(lambda: _all_begun(streams), "both streams have begun")
        await victim.crash()
    assert [one.result().headers["x-millrace-replica"] for one in wholes] == ["ours", "ours"]
    assert [one.result().usage[0]["completion_tokens"] for one in wholes] == [100, 100]
    broken = {seen.headers["x-millrace-replica"]: bool(seen.error) for seen in streams}
    assert broken == {"victim": True, "ours": False}


async def _all_begun(answers: list[Answer]) -> bool:
    return all(len(answer.events) > 2 for answer in answers)


async def _begun(answer: Answer) -> bool:
    return len(answer.events) > 2


async def _idle(engine: Client) -> bool:
    return await engine.gauge("llamacpp:requests_processing") == 0

"""vLLM is killed with streams in flight: another engine goes on, and no client can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.core.event import Dispatch
from millrace.launch import Process
from tests.engines import servers
from tests.engines.fleet import START_S, Answer, Client, Publishing, entries, gateway, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1200)]

STREAMS = 8  # as many as two engines answer at once
OPTIONS: dict[str, Any] = {
    "max_tokens": 96,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


async def test_another_of_vllm_goes_on_to_the_letter(vllms: list[Publishing], tmp_path: Path) -> None:
    for engine in vllms:
        await engine.up()
    one, two = (engine.process for engine in vllms)
    async with gateway(tmp_path, {"one": one, "two": two}) as front:
        await unnoticed(front, two, tmp_path)


async def test_our_engine_goes_on_to_the_letter(
    vllms: list[Publishing], ours: Process, tmp_path: Path
) -> None:
    await vllms[1].up()
    async with gateway(tmp_path, {"ours": ours, "vllm": vllms[1].process}) as front:
        await unnoticed(front, vllms[1].process, tmp_path)


async def test_it_goes_on_with_answers_of_our_engine_to_the_letter(
    vllms: list[Publishing], tmp_path: Path
) -> None:
    await vllms[0].up()
    victim = Process("victim", servers.our_engine(), tmp_path / "victim.log")
    await victim.start(within_s=START_S)
    async with gateway(tmp_path, {"vllm": vllms[0].process, "victim": victim}) as front:
        await unnoticed(front, victim, tmp_path)


async def unnoticed(front: Client, victim: Process, folder: Path) -> None:
    """Ask twice, the second time with a victim that is killed once all have begun, and compare."""
    undisturbed = await streams(front)

    async def kill_it(answers: list[Answer]) -> None:
        await until(lambda: _begun(answers), "all streams have begun")
        await victim.crash()

    for answer, same in zip(await streams(front, kill_it), undisturbed, strict=True):
        assert answer.done
        assert (answer.error, answer.text, answer.finish) == (None, same.text, same.finish)
        assert [_counts(usage) for usage in answer.usage] == [_counts(usage) for usage in same.usage]
        assert len({(event["id"], event["created"], event["model"]) for event in answer.events}) == 1
    actions = [action for entry in entries(folder) for action in entry.actions]
    resumed = [a for a in actions if isinstance(a, Dispatch) and isinstance(a.resume_tokens, int)]
    assert len(resumed) >= STREAMS // 4, "it was killed too late"
    assert await front.gauge("millrace_stream_resumed_total") == len(resumed)


async def streams(
    front: Client, during: Callable[[list[Answer]], Awaitable[None]] | None = None
) -> list[Answer]:
    """Ask for all at once, every other one a chat; `during` may look at what has come so far."""
    answers = [Answer() for _ in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        for n, answer in enumerate(answers):
            text = f"def task_{n}(value, other):\n    "
            if n % 2:
                group.create_task(front.ask("/v1/completions", answer, prompt=text, **OPTIONS))
            else:
                said = [{"role": "user", "content": text}]
                group.create_task(front.ask("/v1/chat/completions", answer, messages=said, **OPTIONS))
        if during is not None:
            await during(answers)
    return answers


async def _begun(answers: list[Answer]) -> bool:
    return all(answer.text for answer in answers)


def _counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]

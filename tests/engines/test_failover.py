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
        assert await unnoticed(front, two, tmp_path, queued_at="two") == {"one"}


async def test_our_engine_goes_on_to_the_letter(
    vllms: list[Publishing], ours: Process, tmp_path: Path
) -> None:
    await vllms[1].up()
    async with gateway(tmp_path, {"ours": ours, "vllm": vllms[1].process}) as front:
        assert await unnoticed(front, vllms[1].process, tmp_path, queued_at="vllm") == {"ours"}


async def test_it_goes_on_with_answers_of_our_engine_to_the_letter(
    vllms: list[Publishing], tmp_path: Path
) -> None:
    await vllms[0].up()
    victim = Process("victim", servers.our_engine(), tmp_path / "victim.log")
    await victim.start(within_s=START_S)
    async with gateway(tmp_path, {"vllm": vllms[0].process, "victim": victim}) as front:
        await unnoticed(front, victim, tmp_path)


async def unnoticed(
    front: Client, victim: Process, folder: Path, *, queued_at: str | None = None
) -> set[str]:
    """Ask twice, the second time with a victim that is killed once all have begun, and compare.

    At a victim that answers no more than four at once, and so is `queued_at`, one that is no stream waits
    as well by then; return who gave it and its like.
    """
    undisturbed = await streams(front)
    wholes: list[Answer] = []

    async def kill_it(answers: list[Answer]) -> None:
        await until(lambda: _begun(answers), "all streams have begun")
        count = 2 if queued_at else 0
        asked = [front.complete(f"x = {n}", max_tokens=8, ignore_eos=True) for n in range(count)]
        asking = asyncio.gather(*asked)
        if queued_at:
            await until(lambda: _queued(front, queued_at), "one waits behind the victim's streams")
        await victim.crash()
        wholes.extend(await asking)

    for answer, same in zip(await streams(front, kill_it), undisturbed, strict=True):
        assert answer.done
        assert (answer.error, answer.text, answer.finish) == (None, same.text, same.finish)
        assert [_counts(usage) for usage in answer.usage] == [_counts(usage) for usage in same.usage]
        assert len({(event["id"], event["created"], event["model"]) for event in answer.events}) == 1
    actions = [action for entry in entries(folder) for action in entry.actions]
    resumed = [a for a in actions if isinstance(a, Dispatch) and isinstance(a.resume_tokens, int)]
    assert len(resumed) >= STREAMS // 4, "it was killed too late"
    assert await front.gauge("millrace_stream_resumed_total") == len(resumed)
    assert all(whole.usage[0]["completion_tokens"] == 8 for whole in wholes)
    return {whole.headers["x-millrace-replica"] for whole in wholes}


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


async def _queued(front: Client, replica: str) -> bool:
    _, page = await front.get("/metrics")
    lines = [line for line in page.splitlines() if line.startswith("millrace_request_running{")]
    return any(f'replica="{replica}"' in line and float(line.split()[-1]) == 5 for line in lines)


def _counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]

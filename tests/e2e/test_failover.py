"""An engine is killed with fifty streams in flight: every client gets the answer it would have got anyhow."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct
from openai import AsyncOpenAI

from millrace.control.log import read_entry, replay
from millrace.core.event import Dispatch
from tests.e2e.fleet import engines, until

pytestmark = pytest.mark.anyio

STREAMS = 50
LENGTH = 96
OPTIONS: dict[str, Any] = {"model": "demo", "max_tokens": LENGTH, "temperature": 0, "stream": True}
USAGE = {"include_usage": True}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Seen(Struct):
    """One answer as its client saw it; `joint` are the ids that its events went by."""

    text: str = ""
    roles: int = 0
    finish: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    joint: frozenset[tuple[str, int, str]] = frozenset()
    done: bool = False

    def note(self, event: dict[str, Any]) -> None:
        """Take one event."""
        self.joint |= {(event["id"], event["created"], event["model"])}
        for choice in event["choices"]:
            delta = choice.get("delta") or {}
            self.text += choice.get("text") or delta.get("content") or ""
            self.roles += "role" in delta and delta["role"] is not None
            self.finish += (choice["finish_reason"],) if choice["finish_reason"] else ()
        if usage := event.get("usage"):
            self.tokens += (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])


def prompt(number: int) -> str:
    return f"def task_{number}(value, other):\n    "


async def raw(session: aiohttp.ClientSession, url: str, seen: Seen, number: int) -> None:
    """Odd ones are chats; every third ends at a stop string, if it comes."""
    chat = number % 2 == 1
    asked = (
        {"messages": [{"role": "user", "content": prompt(number)}]} if chat else {"prompt": prompt(number)}
    )
    body = OPTIONS | asked | {"stream_options": USAGE} | ({} if number % 3 else {"stop": ["return x"]})
    body |= {"ignore_eos": number % 4 < 3}
    async with session.post(f"{url}/v1/{'chat/' if chat else ''}completions", json=body) as response:
        async for line in response.content:
            if line == b"data: [DONE]\n":
                seen.done = True
            elif line.startswith(b"data: "):
                seen.note(json.loads(line[6:]))


async def of_sdk(client: AsyncOpenAI, seen: Seen, number: int) -> None:
    chat = [{"role": "user", "content": prompt(number)}]
    options = OPTIONS | {"stream_options": USAGE, "extra_body": {"ignore_eos": True}}
    stream: Any = await client.chat.completions.create(messages=chat, **options)  # type: ignore[arg-type]
    async for event in stream:
        seen.note(event.model_dump(exclude_unset=True))
    seen.done = True


async def all_at_once(url: str, during: Callable[[list[Seen]], Awaitable[None]] | None = None) -> list[Seen]:
    """Fifty streams, ten of them the SDK's; `during` may look at what they have seen so far."""
    answers = [Seen() for _ in range(STREAMS)]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client,
        asyncio.TaskGroup() as group,
    ):
        for number, seen in enumerate(answers):
            group.create_task(
                of_sdk(client, seen, number) if number < 10 else raw(session, url, seen, number)
            )
        if during is not None:
            await during(answers)
    return answers


@pytest.mark.timeout(240)
async def test_fifty_streams_survive_a_killed_engine_to_the_letter(tmp_path: Path) -> None:
    async with engines(tmp_path, "one", "two", "three") as fleet:
        undisturbed = await all_at_once(fleet.gateway.url)

        async def kill_one_once_all_have_begun(answers: list[Seen]) -> None:
            async def all_have_begun() -> bool:
                return all(seen.text for seen in answers)

            await until(all_have_begun, within_s=60)
            await fleet.kill(fleet.engines[1])

        answers = await all_at_once(fleet.gateway.url, kill_one_once_all_have_begun)

    for one, other in zip(answers, undisturbed, strict=True):
        assert (one.text, one.finish, one.tokens) == (other.text, other.finish, other.tokens)
        assert one.roles == other.roles
        assert len(one.joint) == 1
        assert one.done
    assert Counter(one.finish for one in answers).keys() <= {("stop",), ("length",)}

    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    actions = [action for n, line in enumerate(lines[1:], 2) for action in read_entry(line, n).actions]
    resumed = [a.request_id for a in actions if isinstance(a, Dispatch) and isinstance(a.resume_tokens, int)]
    assert len(resumed) == len(set(resumed)) >= STREAMS // 4, "the engine was killed too late"
    assert replay(lines).identical == len(actions)

"""A real gateway in front of real engines, and a client that notes all that an answer says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from millrace.control.log import Entry, read_entry
from millrace.launch import Process, gateway_command

START_S = 600.0  # two of vLLM start within a minute or two on two idle cores
PATIENCE_S = 100.0


@dataclass(frozen=True)
class Publishing:
    """An engine that tells of its cache on these ports."""

    process: Process
    events: int
    replay: int

    async def up(self) -> None:
        """Start it again if a test killed it."""
        if not self.process.alive:
            await self.process.start(within_s=START_S)


@dataclass
class Answer:
    """An answer as its client saw it, whole or as far as its stream has come."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def choices(self) -> Iterator[dict[str, Any]]:
        return (choice for event in self.events for choice in event.get("choices", ()))

    @property
    def text(self) -> str:
        return "".join(map(_said, self.choices))

    @property
    def tokens(self) -> list[int]:
        """The tokens behind the text, from engines that tell them."""
        return [token for choice in self.choices for token in choice.get("token_ids") or ()]

    @property
    def prompt(self) -> list[int]:
        """The prompt's tokens, likewise."""
        told = [*self.events, *self.choices]
        return next((one["prompt_token_ids"] for one in told if one.get("prompt_token_ids")), [])

    @property
    def finish(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.choices if choice.get("finish_reason")]

    @property
    def usage(self) -> list[dict[str, Any]]:
        return [event["usage"] for event in self.events if event.get("usage")]

    @property
    def error(self) -> Any:
        return next((event["error"] for event in self.events if "error" in event), None)


class Client:
    """Asks one server, over connections of its own."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str) -> tuple[int, str]:
        """Return a page's status and text."""
        async with self._session.get(self.url + path) as response:
            return response.status, await response.text()

    async def gauge(self, name: str) -> float:
        """Return the sum of a metric's values."""
        _, page = await self.get("/metrics")
        lines = [line for line in page.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.split()[-1]) for line in lines)

    async def complete(self, prompt: str | list[int], **fields: Any) -> Answer:
        """Ask for a greedy completion."""
        return await self.ask("/v1/completions", Answer(), prompt=prompt, **fields)

    async def chat(self, content: str, **fields: Any) -> Answer:
        """Ask for a greedy answer in a chat."""
        return await self.ask(
            "/v1/chat/completions", Answer(), messages=[{"role": "user", "content": content}], **fields
        )

    async def ask(self, path: str, answer: Answer, **fields: Any) -> Answer:
        """Ask for anything, and fill the answer as it comes."""
        body = {"model": "demo", "temperature": 0, **fields}
        async with self._session.post(self.url + path, json=body) as response:
            answer.status, answer.headers = response.status, response.headers
            if "event-stream" not in response.headers["content-type"]:
                answer.events.append(await response.json())
                return answer
            async for line in response.content:
                if line == b"data: [DONE]\n":
                    answer.done = True
                elif line.startswith(b"data: "):
                    answer.events.append(json.loads(line[6:]))
        return answer


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """Connect to a server."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield Client(url, session)


@asynccontextmanager
async def gateway(
    folder: Path, engines: Mapping[str, Process], *options: str, routing: str = "round_robin"
) -> AsyncIterator[Client]:
    """Serve these engines, and connect. The gateway's log of events is `events.jsonl` in the folder."""
    front = gateway_command(
        routing=routing,
        names=list(engines),
        event_log=folder / "events.jsonl",
        options=("--scrape", "0.2", *options),
    )
    process = Process("gateway", front([engine.url for engine in engines.values()]), folder / "gateway.log")
    await process.start(within_s=PATIENCE_S)
    try:
        async with client(process.url) as connected:
            await until(lambda: _ready(connected, len(engines)), "all engines are ready")
            yield connected
    finally:
        await process.stop()


def entries(folder: Path) -> list[Entry]:
    """What the gateway heard and did, so far."""
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    return [read_entry(line, number) for number, line in enumerate(lines[1:], 2) if line.endswith(b"\n")]


async def until(true: Callable[[], Awaitable[bool]], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Wait for something to become true, and fail if it does not."""
    try:
        async with asyncio.timeout(within_s):
            while not await true():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


async def _ready(front: Client, count: int) -> bool:
    return await front.gauge("millrace_pool_ready_replicas") == count


def _said(choice: dict[str, Any]) -> str:
    message = choice.get("delta") or choice.get("message") or {}
    return choice.get("text") or message.get("content") or ""

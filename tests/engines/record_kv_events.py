"""Records what vLLM says of its prefix cache, byte for byte, and what it finds there: data of a unit test.

`python -m tests.engines.record_kv_events` writes `tests/data/kv_events/vllm.json` anew, once
`make test-engines` has installed vLLM.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from millrace.core.draw import draw
from millrace.launch import Process
from pages import ROOT
from tests.engines import servers
from tests.engines.announcer import free_port
from tests.engines.fleet import START_S, Client, client

SAMPLE = ROOT / "tests" / "data" / "kv_events" / "vllm.json"
BLOCKS = 10
SILENCE_S = 1.0
END = b"\xff" * 8

Frames = list[bytes]


async def record() -> dict[str, Any]:
    """Start an engine with a small cache, ask it for more than that holds, and return all it said."""
    events, replay = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = servers.vllm_telling(events=events, replay=replay, blocks=BLOCKS, context=256)
        process = Process("vllm", command, Path(folder) / "vllm.log")
        await process.start(within_s=START_S)
        try:
            async with client(process.url) as engine, _listening(events) as heard:
                version = json.loads((await engine.get("/version"))[1])["version"]
                asked = [await _ask(engine, heard, tokens) for tokens in prompts()]
                said = {
                    "published": [_hex(f) for f in heard],
                    "replayed": [_hex(f) for f in await _replayed(replay)],
                }
        finally:
            await process.stop()
    return {"engine": f"vLLM {version}", "block_tokens": servers.BLOCK_TOKENS, "asked": asked, **said}


def prompts() -> list[list[int]]:
    """Some begin alike, one comes again and again, and together they are more than the cache holds."""
    first, second = _tokens("first", 70), _tokens("second", 64)
    return [
        first,
        first[:40] + _tokens("turn", 30),
        first,
        second,
        second + first[:50],
        _tokens("third", 200),
        first,
    ]


def _tokens(name: str, count: int) -> list[int]:
    return [4 + draw(name, n) % 4000 for n in range(count)]


async def _ask(engine: Client, heard: list[Frames], tokens: list[int]) -> dict[str, Any]:
    """Ask for two tokens; return the prompt, what of it was cached, and how much had been said by then.

    What it finds in its cache, it is to tell again.
    """
    before = len(heard)
    answer = await engine.complete(tokens, max_tokens=2, vllm_xargs={"kv_cache_report_mode": "full"})
    cached = (answer.usage[0]["prompt_tokens_details"] or {}).get("cached_tokens", 0)
    count = -1
    while count != len(heard):
        count = len(heard)
        await asyncio.sleep(SILENCE_S)
    return {"prompt": tokens, "cached": cached, "batches": before}


@asynccontextmanager
async def _listening(port: int) -> AsyncIterator[list[Frames]]:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(f"tcp://127.0.0.1:{port}")
    heard: list[Frames] = []

    async def listen() -> None:
        while True:
            heard.append(await socket.recv_multipart())

    listening = asyncio.create_task(listen())
    await asyncio.sleep(SILENCE_S)
    try:
        yield heard
    finally:
        listening.cancel()
        context.destroy(linger=0)


async def _replayed(port: int) -> list[Frames]:
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(f"tcp://127.0.0.1:{port}")
        await socket.send_multipart([b"", (0).to_bytes(8, "big")])
        replies: list[Frames] = []
        while not replies or END not in replies[-1]:
            replies.append(await asyncio.wait_for(socket.recv_multipart(), 10))
        return replies


def _hex(frames: Frames) -> list[str]:
    return [frame.hex() for frame in frames]


if __name__ == "__main__":
    SAMPLE.parent.mkdir(exist_ok=True)
    SAMPLE.write_text(json.dumps(asyncio.run(record())) + "\n")

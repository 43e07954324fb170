"""Engines that take long to start, shared by all tests here; whoever kills one starts it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from millrace.launch import Process
from tests.engines import servers
from tests.engines.announcer import free_port
from tests.engines.fleet import START_S, Publishing


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def gguf(logs: Path) -> Path:
    """The demo model for llama.cpp."""
    return servers.write_gguf(logs / "demo.gguf")


@pytest.fixture(scope="session")
async def vllms(logs: Path) -> AsyncIterator[list[Publishing]]:
    """Two of vLLM."""
    engines = []
    for name in ("vllm-0", "vllm-1"):
        events, replay = free_port(), free_port()
        process = Process(name, servers.vllm_telling(events=events, replay=replay), logs / f"{name}.log")
        engines.append(Publishing(process, events, replay))
    await asyncio.gather(*(engine.process.start(within_s=START_S) for engine in engines))
    yield engines
    await asyncio.gather(*(engine.process.stop() for engine in engines))


@pytest.fixture(scope="module")
async def pair(logs: Path) -> AsyncIterator[dict[str, Process]]:
    """Two of vLLM, of which `p` computes prompts for `d`."""
    halves = {
        "p": Process("p", servers.vllm_paired(role="kv_producer", side=free_port()), logs / "p.log"),
        "d": Process("d", servers.vllm_paired(role="kv_consumer", side=free_port()), logs / "d.log"),
    }
    await asyncio.gather(*(one.start(within_s=START_S) for one in halves.values()))
    yield halves
    await asyncio.gather(*(one.stop() for one in halves.values()))


@pytest.fixture(scope="session")
async def llama(logs: Path, gguf: Path) -> AsyncIterator[Process]:
    """One of llama.cpp."""
    process = Process("llama", servers.llama_cpp(gguf), logs / "llama.log")
    await process.start(within_s=START_S)
    yield process
    await process.stop()


@pytest.fixture(scope="session")
async def ours(logs: Path) -> AsyncIterator[Process]:
    """One of our own."""
    process = Process("ours", servers.our_engine(), logs / "ours.log")
    await process.start(within_s=START_S)
    yield process
    await process.stop()

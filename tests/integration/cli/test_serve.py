"""`millrace serve` does what its options say."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGTERM

import aiohttp
import pytest
from openai import APIStatusError, AsyncOpenAI

from millrace.data import demo_model
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script

PATIENCE_S = 30.0


@asynccontextmanager
async def served(*words: str) -> AsyncIterator[dict[str, str]]:
    """Run `millrace serve` on free ports; yield the URLs it tells, by what they are for."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "millrace", "serve", "--port", "0", *words), stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    urls: dict[str, str] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while "ready" not in urls:
                line = (await child.stderr.readline()).decode()
                told = re.fullmatch(r"(admin|ready) (http://127\.0\.0\.1:\d+)\n", line)
                assert told, line
                urls[told[1]] = told[2]
        yield urls
    finally:
        child.send_signal(SIGTERM)
        _, rest = await asyncio.wait_for(child.communicate(), PATIENCE_S)
    assert child.returncode == 0, rest


async def page(url: str) -> tuple[int, str]:
    """Return the status and text of a page."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


def test_names_retries_and_the_admin_port_are_what_the_options_say() -> None:
    async def scenario() -> None:
        llama, qwen = FakeEngine("a", models=("llama",)), FakeEngine("b", models=("qwen",))
        words = ("--alias", "chat=llama:1", "--alias", "*=qwen", "--fallback", "llama=qwen", "--drain", "0")
        retries = ("--max-attempts", "1", "--retry-ratio", "0", "--retry-reserve", "1", "--retry-floor", "0")
        async with llama, qwen:
            engines = ("--backend", llama.url, "--backend", qwen.url)
            async with served(*engines, *words, *retries, "--admin-port", "0") as urls:
                base_url = urls["ready"] + "/v1"
                async with AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
                    assert await asked(client, "chat") == (200, "chat")
                    assert await asked(client, "gpt-4o") == (200, "gpt-4o")
                    llama.script = Script(breaks="reset")
                    assert await asked(client, "chat") == (200, "chat")
                    assert (await asked(client, "chat"))[0] == 503
                assert [heard.json["model"] for heard in qwen.heard] == ["qwen", "qwen"]
                status, text = await page(urls["admin"] + "/metrics")
                assert status == 200
                assert 'millrace_retry_total{reason="reset"} 1.0' in text

    asyncio.run(scenario())


async def asked(client: AsyncOpenAI, model: str) -> tuple[int, str | None]:
    """Ask a model something; return the status, and what the answer calls the model."""
    try:
        done = await client.completions.create(model=model, prompt="hi")
    except APIStatusError as error:
        return error.status_code, None
    return 200, done.model


def test_an_answer_may_keep_the_engines_name() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            words = ("--backend", engine.url, "--alias", "chat=m", "--answer-as-served", "--drain", "0")
            async with (
                served(*words) as urls,
                AsyncOpenAI(base_url=urls["ready"] + "/v1", api_key="k", max_retries=0) as client,
            ):
                assert await asked(client, "chat") == (200, "m")

    asyncio.run(scenario())


@pytest.mark.parametrize("engines", [("--backend", "http://127.0.0.1:9"), ("--demo",)])
@pytest.mark.parametrize("option", ["port", "admin-port"])
def test_a_port_in_use_is_one_clear_line_before_anything_is_started(
    tmp_path: Path, engines: tuple[str, ...], option: str
) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("serve", *engines, "--event-log", str(log), "--port", "0", f"--{option}", str(port))
        argv = [sys.executable, "-m", "millrace", *words]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    why = f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert (done.returncode, done.stderr) == (2, f"error: {why}; choose another --{option}\n")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_is_used_and_a_bootstrap_must_be_a_backends() -> None:
    async def scenario() -> None:
        async with FakeEngine("a", models=("demo",)) as engine:
            words = ("--backend", f"a={engine.url}", "--tokenizer", f"demo={demo_model()}")
            async with served(*words, "--bootstrap", "a=127.0.0.1:8998") as urls:
                async with AsyncOpenAI(base_url=urls["ready"] + "/v1", api_key="k", max_retries=0) as client:
                    assert await asked(client, "demo") == (200, "demo")
                _, text = await page(urls["ready"] + "/metrics")
                assert 'millrace_prefix_tokens_total{outcome="made"} 1' in text
        words = ("--backend", "a=http://127.0.0.1:1", "--bootstrap", "b=127.0.0.1:8998")
        argv = (sys.executable, "-m", "millrace", "serve", *words)
        refused = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
        assert refused.returncode == 2
        assert "--bootstrap: ['b'] name no replica" in refused.stderr

    asyncio.run(scenario())

"""One vLLM computes prompts, another one answers: what they say together is what one alone says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millrace.launch import Process
from tests.engines.fleet import Answer, Client, client, gateway

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

CODE = "def task_%d(value, other):\n    found = []\n    for one in value:\n        if one not in other:\n    "
PROMPTS = [(CODE % n) * (1 + n % 3) for n in range(6)]
OPTIONS: dict[str, Any] = {"max_tokens": 32, "ignore_eos": True, "return_token_ids": True}


@asynccontextmanager
async def split(folder: Path, pair: dict[str, Process]) -> AsyncIterator[Client]:
    """A gateway that lets `p` compute every prompt, and `d` answer."""
    specs = folder / "specs.json"
    specs.write_text(
        json.dumps({"p": {"models": [], "role": "prefill"}, "d": {"models": [], "role": "decode"}})
    )
    routing = "disaggregated(local_below_tokens=0)"
    async with gateway(folder, pair, "--specs", str(specs), routing=routing) as front:
        yield front


async def said(asked: Client, **fields: Any) -> list[Answer]:
    """Ask for all at once, every other one a chat."""
    asking = [
        (asked.chat if n % 2 else asked.complete)(prompt, **OPTIONS, **fields)
        for n, prompt in enumerate(PROMPTS)
    ]
    return await asyncio.gather(*asking)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pair_says_token_for_token_what_one_alone_says(
    pair: dict[str, Process], tmp_path: Path, stream: bool
) -> None:
    async with split(tmp_path, pair) as front, client(pair["d"].url) as answering:
        before = await answering.gauge("vllm:nixl_xfer_time_seconds_count")
        together = await said(front, stream=stream)
        taken_over = await answering.gauge("vllm:nixl_xfer_time_seconds_count") - before
        assert taken_over == len(PROMPTS)
        assert await answering.gauge("vllm:nixl_num_failed_transfers_total") == 0
    assert {answer.headers["x-millrace-replica"] for answer in together} == {"d"}
    async with client(pair["p"].url) as alone:
        for answer, same in zip(together, await said(alone), strict=True):
            assert len(answer.tokens) == 32
            assert (answer.text, answer.tokens, answer.finish) == (same.text, same.tokens, same.finish)


async def test_prompts_are_computed_where_they_are_sent_for_that(
    pair: dict[str, Process], tmp_path: Path
) -> None:
    async with split(tmp_path, pair) as front, client(pair["p"].url) as p, client(pair["d"].url) as d:
        prompt = [5 + n for n in range(200)]
        made = [await _computed(one) for one in (p, d)]
        assert len((await front.complete(prompt, **OPTIONS)).tokens) == 32
        more = [await _computed(one) - before for one, before in zip((p, d), made, strict=True)]
        assert more == [200, 0]


async def test_without_the_one_that_computes_prompts_the_other_does_it_all(
    pair: dict[str, Process], tmp_path: Path
) -> None:
    async with split(tmp_path, pair) as front:
        together = await said(front)
        await pair["p"].crash()
        for answer, same in zip(await said(front), together, strict=True):
            assert (answer.status, answer.tokens) == (200, same.tokens)


async def _computed(engine: Client) -> float:
    """Prompt tokens that it computed itself."""
    _, page = await engine.get("/metrics")
    lines = [line for line in page.splitlines() if line.startswith("vllm:prompt_tokens_by_source_total{")]
    return sum(float(line.split()[-1]) for line in lines if 'source="local_compute"' in line)

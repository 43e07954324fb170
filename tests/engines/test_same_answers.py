"""Three engines with the same weights read the same tokens and write the same answers, if all are greedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millrace.data import demo_model
from millrace.engine.tokenizing import PromptTokenizer
from millrace.launch import Process
from tests.engines.fleet import Answer, Client, Publishing, client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

PROMPTS = [
    "def f(",
    "import os\n\n\nclass Path:\n    def __init__(self",
    "    # 1234567890 + 3.14e-5 isn't 'ça'  \t\n\n  return x\n",
    'async def naïve_日本語(x):\n    """',
    "for i in range(10):\n\tprint(i",
]
OPTIONS: dict[str, Any] = {"max_tokens": 48, "return_token_ids": True}


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_llama_cpp_writes_what_our_engine_writes(llama: Process, ours: Process, prompt: str) -> None:
    await _same(llama.url, ours.url, prompt)


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_vllm_writes_what_our_engine_writes(
    vllms: list[Publishing], ours: Process, prompt: str
) -> None:
    await vllms[0].up()
    for one, other in await _same(vllms[0].process.url, ours.url, prompt):
        assert (one.prompt, one.tokens) == (other.prompt, other.tokens)


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_llama_cpp_cuts_text_into_the_same_tokens(llama: Process, ours: Process, prompt: str) -> None:
    async with client(llama.url) as one, client(ours.url) as other:
        theirs = await one.ask("/tokenize", Answer(), content=prompt, add_special=True)
        same = await other.ask("/tokenize", Answer(), prompt=prompt)
        assert theirs.events == [{"tokens": same.events[0]["tokens"]}]


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_a_gateways_tokenizer_cuts_chats_and_texts_into_vllms_tokens(
    vllms: list[Publishing], prompt: str
) -> None:
    here = PromptTokenizer.load(demo_model())
    await vllms[0].up()
    talk = [{"role": "system", "content": prompt}, {"role": "user", "content": prompt}]
    async with client(vllms[0].process.url) as there:
        for fields in (
            {"prompt": prompt},
            {"messages": talk},
            {"messages": talk[1:], "add_special_tokens": True},
        ):
            theirs = await there.ask("/tokenize", Answer(), **fields)
            made = await here.tokens_of(msgspec.json.encode({"model": "demo", **fields}))
            assert made == theirs.events[0]["tokens"]


async def _same(one: str, other: str, prompt: str) -> list[tuple[Answer, Answer]]:
    """Compare the answers of two engines to a completion and to a chat, and return them."""
    async with client(one) as left, client(other) as right:
        pairs = [(await _completed(left, prompt), await _completed(right, prompt))]
        pairs.append((await left.chat(prompt, **OPTIONS), await right.chat(prompt, **OPTIONS)))
    for left_said, right_said in pairs:
        assert (left_said.text, left_said.finish) == (right_said.text, right_said.finish)
        assert len(left_said.text) > 0
        for count in ("prompt_tokens", "completion_tokens"):
            assert left_said.usage[0][count] == right_said.usage[0][count]
    return pairs


async def _completed(engine: Client, prompt: str) -> Answer:
    return await engine.complete(prompt, **OPTIONS, ignore_eos=True)

"""`/v1/completions` as the OpenAI client sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types import Completion

from tests.integration.engine.process import MODEL, Engine

PROMPT = "The mill race"


def complete(engine: Engine, prompt: Any = PROMPT, **options: Any) -> Completion:
    options = {"temperature": 0, "max_tokens": 24, **options}
    found: Completion = engine.client.completions.create(model=MODEL, prompt=prompt, **options)
    return found


def tokens_of(engine: Engine, text: str) -> list[int]:
    tokens: list[int] = engine.post("/tokenize", {"prompt": text})["tokens"]
    return tokens


def text_of(engine: Engine, **options: Any) -> str:
    return complete(engine, **options).choices[0].text


def streamed(engine: Engine, **options: Any) -> list[Completion]:
    options = {"temperature": 0, "max_tokens": 24, **options}
    return list(engine.client.completions.create(model=MODEL, prompt=PROMPT, stream=True, **options))


def test_a_completion_tells_its_text_why_it_ended_and_what_it_cost(engine: Engine) -> None:
    found = complete(engine, extra_body={"ignore_eos": True})
    assert found.id.startswith("cmpl-")
    assert (found.object, found.model) == ("text_completion", MODEL)
    assert found.choices[0].finish_reason == "length"
    assert found.usage
    assert found.usage.completion_tokens == 24
    assert found.usage.total_tokens == found.usage.prompt_tokens + 24


def test_streamed_chunks_join_to_the_whole_text(engine: Engine) -> None:
    chunks = streamed(engine)
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].text for chunk in chunks) == text_of(engine)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == [
        "length"
    ]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_ends_with_its_usage_if_asked_for(engine: Engine) -> None:
    *chunks, last = streamed(engine, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens == 24


def test_answers_do_not_depend_on_who_else_is_answered(engine: Engine) -> None:
    prompts = [f"{PROMPT} {i}" * (1 + i % 4) for i in range(8)]
    alone = [text_of(engine, prompt=prompt) for prompt in prompts]

    async def together() -> list[str]:
        async with AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
            asked = [
                client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=24)
                for prompt in prompts
            ]
            return [found.choices[0].text for found in await asyncio.gather(*asked)]

    assert asyncio.run(together()) == alone


@pytest.mark.parametrize("cut", [slice(3, 6), slice(8, 9), slice(5, 12)])
def test_a_stop_string_ends_the_text_in_front_of_it(engine: Engine, cut: slice) -> None:
    whole = text_of(engine)
    stop = whole[cut]
    found = complete(engine, stop=["never said", stop])
    assert found.choices[0].text == whole[: whole.find(stop)]
    assert found.choices[0].finish_reason == "stop"
    chunks = streamed(engine, stop=stop)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole[: whole.find(stop)]


def test_a_stop_token_ends_the_text_unshown_but_counted(engine: Engine) -> None:
    (token,) = tokens_of(engine, "a")
    found = complete(engine, logit_bias={str(token): 100}, extra_body={"stop_token_ids": [token]})
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("", "stop")
    assert found.usage
    assert found.usage.completion_tokens == 1


def test_several_prompts_and_choices_come_in_order(engine: Engine) -> None:
    found = complete(engine, [PROMPT, "Another"], n=2)
    texts = [choice.text for choice in found.choices]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert texts == [texts[0]] * 2 + [texts[2]] * 2
    assert texts[2] == text_of(engine, prompt="Another")
    assert found.usage
    assert found.usage.completion_tokens == 4 * 24


def test_tokens_are_as_good_as_text(engine: Engine) -> None:
    tokens = tokens_of(engine, PROMPT)
    assert complete(engine, tokens).choices[0].text == text_of(engine)
    assert complete(engine, [tokens, tokens]).choices[1].text == text_of(engine)


def test_an_echo_begins_with_the_prompt_also_in_a_stream(engine: Engine) -> None:
    expected = PROMPT + text_of(engine)
    assert text_of(engine, echo=True) == expected
    assert "".join(chunk.choices[0].text for chunk in streamed(engine, echo=True)) == expected


def test_a_seed_repeats_a_sample_and_choices_differ(engine: Engine) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "n": 3}
    first, again, other = (complete(engine, seed=seed, **options) for seed in (7, 7, 8))
    texts = [choice.text for choice in first.choices]
    assert [choice.text for choice in again.choices] == texts
    assert [choice.text for choice in other.choices] != texts
    assert len(set(texts)) == 3


def test_without_a_seed_samples_differ(engine: Engine) -> None:
    assert text_of(engine, temperature=1.5) != text_of(engine, temperature=1.5)


def test_logprobs_tell_each_token_its_alternatives_and_its_place(engine: Engine) -> None:
    choice = complete(engine, logprobs=2, max_tokens=6).choices[0]
    assert choice.logprobs
    assert choice.logprobs.tokens
    assert choice.logprobs.token_logprobs
    assert choice.logprobs.top_logprobs
    assert len(choice.logprobs.tokens) == 6
    for token, logprob, top in zip(
        choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values()) < 0
    assert choice.logprobs.text_offset == [len("".join(choice.logprobs.tokens[:i])) for i in range(6)]


def test_a_biased_token_is_all_that_comes(engine: Engine) -> None:
    (token,) = tokens_of(engine, "a")
    assert text_of(engine, logit_bias={str(token): 100}, max_tokens=5) == "aaaaa"


def test_penalties_keep_a_text_from_repeating_itself(engine: Engine) -> None:
    options: dict[str, Any] = {"logprobs": 0, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
    tokens = complete(engine, frequency_penalty=2.0, presence_penalty=2.0, **options).choices[0].logprobs
    plain = complete(engine, **options).choices[0].logprobs
    assert tokens
    assert plain
    assert len(set(tokens.tokens or ())) > len(set(plain.tokens or ()))


def test_a_prompt_seen_before_comes_from_the_cache(engine: Engine) -> None:
    prompt = "A prompt that nobody else sends, long enough for some blocks."
    first, second = complete(engine, prompt), complete(engine, prompt)
    assert first.usage
    assert second.usage
    assert first.usage.prompt_tokens_details
    assert second.usage.prompt_tokens_details
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > 8
    assert first.choices[0].text == second.choices[0].text

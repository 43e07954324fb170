"""Answers that broke off elsewhere go on here, exactly as they would have gone on there."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.integration.engine.process import MODEL, Engine

LENGTH = 14
TEXT = {"prompt": "The mill race", "max_tokens": LENGTH, "ignore_eos": True}
CHAT = {"messages": [{"role": "user", "content": "Which way?"}], "max_tokens": LENGTH, "ignore_eos": True}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 1.5, "seed": 7},
    "nucleus": {"temperature": 1.5, "seed": 8, "top_p": 0.9},
    "penalised": {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.5},
    "repeating less": {"temperature": 0, "repetition_penalty": 1.4},
    "at least": {"temperature": 0, "min_tokens": 10},
}


def events_of(engine: Engine, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a stream's events, but for the last, which says that it is done."""
    fixed = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}}
    request = urllib.request.Request(f"{engine.url}{path}", json.dumps(fixed | body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        *events, done = [line[6:] for line in response.read().decode().splitlines() if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def choices_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["choices"][0] for event in events if event["choices"]]


def text_of(choice: dict[str, Any]) -> str:
    text: str = choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return text


def tokens_of(choices: list[dict[str, Any]]) -> list[int]:
    return [token for choice in choices for token in choice.get("token_ids", ())]


def check_every_cut(engine: Engine, path: str, body: dict[str, Any]) -> str:
    """Cut a stream behind each of its tokens, and compare what follows; return the text of all."""
    body = body | {"return_token_ids": True}
    events = events_of(engine, path, body)
    choices = choices_of(events)
    chat = "messages" in body
    prompt = events[0]["prompt_token_ids"] if chat else choices[0]["prompt_token_ids"]
    begin = 1 if chat else 0
    for cut in range(begin, len(choices)):
        had = tokens_of(choices[:cut])
        resumed = events_of(engine, path, body | {"resume": {"prompt_token_ids": prompt, "token_ids": had}})
        rest = choices_of(resumed)
        assert tokens_of(rest) == tokens_of(choices[cut:])
        assert "".join(map(text_of, rest)) == "".join(map(text_of, choices[cut:]))
        assert rest[-1]["finish_reason"] == choices[-1]["finish_reason"]
        counts = [resumed[-1]["usage"][name] for name in ("prompt_tokens", "completion_tokens")]
        assert counts == [events[-1]["usage"][name] for name in ("prompt_tokens", "completion_tokens")]
        assert not any("role" in choice.get("delta", ()) or "prompt_token_ids" in choice for choice in rest)
    return "".join(map(text_of, choices))


@pytest.mark.parametrize("way", WAYS)
def test_a_completion_goes_on_as_it_would_have_behind_any_token(engine: Engine, way: str) -> None:
    check_every_cut(engine, "/v1/completions", TEXT | WAYS[way])


@pytest.mark.parametrize("way", ["greedy", "seeded", "penalised"])
def test_a_chat_goes_on_as_it_would_have_behind_any_token(engine: Engine, way: str) -> None:
    check_every_cut(engine, "/v1/chat/completions", CHAT | WAYS[way])


def test_a_stop_string_may_span_the_joint(engine: Engine) -> None:
    whole = check_every_cut(engine, "/v1/completions", TEXT | {"temperature": 1.5, "seed": 7})
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    body = TEXT | {"temperature": 1.5, "seed": 7, "stop": [stop]}
    assert check_every_cut(engine, "/v1/completions", body) == whole[: whole.index(stop)]


def test_a_character_may_span_the_joint(engine: Engine) -> None:
    (bytes_,) = {len(engine.post("/tokenize", {"prompt": "\u00fc"})["tokens"])}
    assert bytes_ == 2
    first, second = engine.post("/tokenize", {"prompt": "\u00fc"})["tokens"]
    bias = {"logit_bias": {str(second): 100}, "temperature": 0, "max_tokens": 2, "ignore_eos": True}
    body = {"prompt": "x", "resume": {"prompt_token_ids": [1, 2], "token_ids": [first]}, **bias}
    assert "".join(map(text_of, choices_of(events_of(engine, "/v1/completions", body)))) == "\u00fc"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_log_probabilities_go_on_where_they_were(engine: Engine, path: str) -> None:
    chat = path.endswith("chat/completions")
    body = (CHAT | {"logprobs": True, "top_logprobs": 2}) if chat else (TEXT | {"logprobs": 2})
    body |= {"temperature": 0, "return_token_ids": True}
    events = events_of(engine, path, body)
    choices = choices_of(events)
    prompt = events[0]["prompt_token_ids"] if chat else choices[0]["prompt_token_ids"]
    resume = {"prompt_token_ids": prompt, "token_ids": tokens_of(choices[:9])}
    rest = choices_of(events_of(engine, path, body | {"resume": resume}))
    for one, other in zip(rest, choices[9:], strict=True):
        if chat:
            (told,), (expected,) = one["logprobs"]["content"], other["logprobs"]["content"]
            assert (told["token"], told["bytes"]) == (expected["token"], expected["bytes"])
            assert told["logprob"] == pytest.approx(expected["logprob"], abs=1e-4)
        else:
            told, expected = one["logprobs"], other["logprobs"]
            assert (told["tokens"], told["text_offset"]) == (expected["tokens"], expected["text_offset"])
            assert told["token_logprobs"] == pytest.approx(expected["token_logprobs"], abs=1e-4)


def test_token_ids_come_with_whole_answers_too(engine: Engine) -> None:
    body = TEXT | {"model": MODEL, "temperature": 0, "return_token_ids": True, "n": 2}
    prompt = engine.post("/tokenize", {"prompt": TEXT["prompt"]})["tokens"]
    for choice in engine.post("/v1/completions", body)["choices"]:
        assert choice["prompt_token_ids"] == prompt
        assert len(choice["token_ids"]) == LENGTH
    chat = CHAT | {"model": MODEL, "temperature": 0, "return_token_ids": True}
    answer = engine.post("/v1/chat/completions", chat)
    tokens = engine.post("/tokenize", {"messages": CHAT["messages"]})["tokens"]
    assert answer["prompt_token_ids"] == tokens
    assert len(answer["choices"][0]["token_ids"]) == LENGTH


def test_nobody_is_told_token_ids_without_asking(engine: Engine) -> None:
    for path, body in (("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)):
        assert "token_ids" not in json.dumps(events_of(engine, path, body))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"n": 2}, "only a single answer can go on"),
        ({"resume": {"prompt_token_ids": [1], "token_ids": [1] * LENGTH}}, "end the answer"),
        ({"resume": {"prompt_token_ids": [1], "token_ids": [1 << 20]}}, "is not below"),
        ({"resume": {"prompt_token_ids": [], "token_ids": [1]}}, "prompt must not be an empty list"),
        ({"resume": {"prompt_token_ids": [1]}}, "missing required field `token_ids`"),
    ],
)
def test_what_cannot_go_on_is_refused(engine: Engine, more: dict[str, Any], why: str) -> None:
    resume = {"resume": {"prompt_token_ids": [1], "token_ids": [1]}}
    refused = engine.post("/v1/completions", TEXT | {"model": MODEL} | resume | more)
    assert refused["status"] == 400
    assert why in refused["error"]["message"]


def test_a_model_says_that_its_answers_can_go_on(engine: Engine) -> None:
    (card,) = json.loads(engine.get("/v1/models"))["data"]
    assert card["resume"] is True

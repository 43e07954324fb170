"""What is not served is refused in OpenAI's shape, with the field that is wrong."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from millrace.engine.protocol import ChatBody
from millrace.engine.wishes import UNSERVED
from tests.integration.engine.process import CONTEXT_TOKENS, MODEL, Engine

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
DEEP = b"[" * 200_000


def content(*parts: Any) -> Any:
    return {"messages": [*MESSAGES, {"role": "user", "content": list(parts)}]}


REFUSED: dict[str, tuple[str, Any, str | None, str]] = {
    "not-json": (COMPLETIONS, b'{"prompt": ', None, "not valid JSON"),
    "no-utf-8": (COMPLETIONS, b'{"prompt": "\xff"}', None, "not valid JSON: 'utf-8' codec"),
    "no-utf-8-in-chat": (CHAT, b'{"messages": [{"role": "user", "content": "\xff"}]}', None, "'utf-8' codec"),
    "no-utf-8-to-tokenize": ("/tokenize", b'{"prompt": "\xff"}', None, "'utf-8' codec"),
    "half-a-character": (COMPLETIONS, b'{"prompt": "\\ud800"}', None, "not valid JSON"),
    "nested": (COMPLETIONS, b'{"prompt": ' + DEEP, None, "nested too deeply"),
    "nested-where-ignored": (CHAT, b'{"messages": [], "metadata": ' + DEEP, None, "nested too deeply"),
    "no-prompt": (COMPLETIONS, {}, "prompt", "missing required field"),
    "no-messages": (CHAT, {}, "messages", "missing required field"),
    "wrong-type": (COMPLETIONS, {"prompt": "a", "temperature": "hot"}, "temperature", "Expected `float"),
    "wrong-item": (COMPLETIONS, {"prompt": "a", "stop": [1]}, "stop", "Expected `str`"),
    "empty-prompt": (COMPLETIONS, {"prompt": ""}, "prompt", "at least one token"),
    "no-prompts": (COMPLETIONS, {"prompt": []}, "prompt", "empty list"),
    "prompt-of-floats": (COMPLETIONS, {"prompt": [1.5]}, "prompt", "text or token ids"),
    "unknown-token": (COMPLETIONS, {"prompt": [1, 9999]}, "prompt", "token 9999"),
    "temperature": (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature", ">= 0"),
    "top_p": (COMPLETIONS, {"prompt": "a", "top_p": 0}, "top_p", "> 0"),
    "n": (CHAT, {"messages": MESSAGES, "n": 1000}, "n", "<= 128"),
    "max_tokens": (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens", ">= 1"),
    "logit_bias": (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "token ids"),
    "biased-unknown": (COMPLETIONS, {"prompt": "a", "logit_bias": {"9999": 1}}, "logit_bias", "9999"),
    "logprobs": (COMPLETIONS, {"prompt": "a", "logprobs": 50}, "logprobs", "<= 20"),
    "echoed-logprobs": (COMPLETIONS, {"prompt": "a", "logprobs": 1, "echo": True}, "logprobs", "echoed"),
    "suffix": (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix", "not served"),
    "best_of": (COMPLETIONS, {"prompt": "a", "best_of": 3}, "best_of", "equal to n"),
    "json-mode": (
        CHAT,
        {"messages": MESSAGES, "response_format": {"type": "json_object"}},
        "response_format",
        "only",
    ),
    "tools": (CHAT, {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools", "tool_choice"),
    "top_logprobs": (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs", "logprobs: true"),
    "nobody-speaks": (CHAT, {"messages": []}, "messages", "at least one message"),
    "nobody-to-tokenize": ("/tokenize", {"messages": []}, "messages", "at least one message"),
    "role": (
        CHAT,
        {"messages": [{"role": "wizard"}]},
        "messages",
        "messages[0].role must be one of system, ",
    ),
    "empty-part": (CHAT, content({}), "messages", "messages[1].content[0].text is missing"),
    "textless-part": (CHAT, content({"type": "text"}), "messages", "messages[1].content[0].text is missing"),
    "part-of-number": (
        CHAT,
        content({"type": "text", "text": 1}),
        "messages",
        "content[0].text is missing or",
    ),
    "image": (CHAT, {"messages": IMAGE}, "messages", "'image_url' is not served"),
    "more-than-may-wait": (COMPLETIONS, {"prompt": ["x"] * 500, "n": 128}, "prompt", "64000 answers"),
    "min_tokens": (
        COMPLETIONS,
        {"prompt": "a", "max_tokens": 3, "min_tokens": 4},
        "min_tokens",
        "<= max_tokens",
    ),
    "nothing-to-tokenize": ("/tokenize", {}, "prompt", "must be given"),
    "negative-token": ("/detokenize", {"tokens": [-1]}, "tokens", "must be token ids"),
}


@pytest.mark.parametrize(("path", "body", "param", "told"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_cannot_be_served_names_its_field(
    engine: Engine, path: str, body: Any, param: str | None, told: str
) -> None:
    answer = engine.post(path, body)
    assert answer["status"] == 400
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert told in answer["error"]["message"]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
def test_an_unknown_model_is_not_found(engine: Engine, path: str) -> None:
    body = {"model": "other", "prompt": "a", "messages": MESSAGES, "tokens": [1]}
    answer = engine.post(path, body)
    assert (answer["status"], answer["error"]["code"], answer["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )


def test_the_client_raises_what_it_documents(engine: Engine) -> None:
    client = engine.client
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="a", max_tokens=CONTEXT_TOKENS)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


def test_a_prompt_longer_than_the_context_is_refused_in_a_stream_too(engine: Engine) -> None:
    body = {"messages": [{"role": "user", "content": "long " * CONTEXT_TOKENS}], "stream": True}
    assert engine.post(CHAT, body)["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("field", sorted(UNSERVED))
def test_what_would_change_an_answer_but_is_not_served_is_refused_by_name(engine: Engine, field: str) -> None:
    path, body = (CHAT, {"messages": MESSAGES}) if field in ChatBody.__struct_fields__ else (COMPLETIONS, {})
    answer = engine.post(path, body | {field: {"type": "object"}})
    assert (answer["status"], answer["error"]["param"]) == (400, field)
    assert answer["error"]["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("name", ["messages", "tools", "self", "bos_token", "raise_exception"])
def test_what_the_engine_gives_to_a_template_cannot_be_given_by_a_request(engine: Engine, name: str) -> None:
    answer = engine.post(CHAT, {"messages": MESSAGES, "chat_template_kwargs": {name: 1}})
    assert (answer["status"], answer["error"]["param"]) == (400, "chat_template_kwargs")
    assert (
        answer["error"]["message"]
        == f"chat_template_kwargs: '{name}' is given to the template by the engine; leave it out"
    )


def test_other_values_for_a_template_are_passed_on(engine: Engine) -> None:
    body = {"messages": MESSAGES, "max_tokens": 1}
    plain = engine.post(CHAT, body | {"chat_template_kwargs": {"special": 1, "values": 1, "thinking": True}})
    silent = engine.post(CHAT, body | {"chat_template_kwargs": {"add_generation_prompt": False}})
    assert silent["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] - 1


def test_unknown_fields_are_ignored_and_so_is_what_is_not_wanted(engine: Engine) -> None:
    unwanted: dict[str, Any] = {
        "guided_regex": None,
        "use_beam_search": False,
        "bad_words": [],
        "from_the_future": {"x": 1},
    }
    body = {"prompt": "a", "max_tokens": 1, **unwanted}
    assert engine.post(COMPLETIONS, body)["usage"]["completion_tokens"] == 1


def test_a_body_that_is_too_large_is_refused(engine: Engine) -> None:
    answer = engine.post(COMPLETIONS, b" " * (17 << 20))
    assert answer["status"] == 413
    assert "longer than" in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/models"])
def test_what_is_no_endpoint_is_refused_in_json(engine: Engine, path: str) -> None:
    answer = engine.post(path, {})
    assert answer["status"] in {404, 405}
    assert answer["error"]["message"].startswith(f"POST {path}: ")

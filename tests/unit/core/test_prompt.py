"""What policies get to see of an HTTP body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millrace.core.prompt import NAME_LIMIT, Asked, InvalidRequestError, Kind, Measure, describe
from millrace.core.request import Slo

MESSAGES = [{"role": "user", "content": "hi"}]


def asked(kind: Kind = "chat", *, measure: Measure | None = None, **fields: Any) -> Asked:
    """Describe a body of these fields."""
    body = json.dumps({"model": "m"} | ({"messages": MESSAGES} if kind == "chat" else {}) | fields)
    return describe(body.encode(), kind, id="r", measure=measure or Measure())


def test_a_chat_request_is_described_with_defaults() -> None:
    request = asked().request
    assert (request.id, request.model, request.tenant, request.session) == ("r", "m", "default", None)
    assert request.max_tokens == Measure().max_tokens
    assert request.prompt_tokens == round(len(json.dumps(MESSAGES)) / 4)
    assert request.priority == 0


def test_the_newer_limit_wins_over_the_older() -> None:
    assert asked(max_tokens=5).request.max_tokens == 5
    assert asked(max_tokens=5, max_completion_tokens=7).request.max_tokens == 7
    assert asked("responses", input="x", max_output_tokens=0).request.max_tokens == 0


def test_an_embedding_makes_no_tokens() -> None:
    assert asked("embedding", input="text", max_tokens=9).request.max_tokens == 0


def test_headers_win_over_the_body_for_tenant_and_session() -> None:
    body = b'{"model":"m","prompt":"x","user":"u","session_id":"s","priority":-3}'
    own = describe(body, "text", id="r", measure=Measure()).request
    assert (own.tenant, own.session, own.priority) == ("u", "s", -3)
    slo = Slo(ttft_s=0.5)
    told = describe(body, "text", id="r", tenant="t", session="h", slo=slo, measure=Measure()).request
    assert (told.tenant, told.session, told.slo) == ("t", "h", slo)


@pytest.mark.parametrize("field", ["session_id", "prompt_cache_key"])
def test_of_long_names_in_a_body_no_more_is_kept_than_of_those_in_headers(field: str) -> None:
    body = json.dumps({"model": "m", "prompt": "x", "user": "u" * 4096, field: "s" * 4096}).encode()
    request = describe(body, "text", id="r", measure=Measure()).request
    assert (request.tenant, request.session) == ("u" * NAME_LIMIT, "s" * NAME_LIMIT)


def test_a_model_by_another_name_shares_its_blocks() -> None:
    def named(name: str) -> Asked:
        body = json.dumps({"model": name, "prompt": "x" * 2000, "session_id": "s"}).encode()
        return describe(
            body, "text", id="r", measure=Measure(), served=lambda name, who: name if who == "r" else "m"
        )

    alias, real = named("chat"), named("m")
    assert len(real.request.blocks) >= 3
    assert alias.request == real.request
    assert (alias.name, real.name, alias.request.model) == ("chat", "m", "m")


def test_a_cache_key_serves_as_session() -> None:
    assert asked(prompt_cache_key="k").request.session == "k"


def test_how_the_answer_is_wanted_is_read() -> None:
    assert not asked().stream
    assert not asked(stream=None).stream
    assert asked(stream=True).stream
    assert not asked(stream=True).stream_options
    plain, wanted = asked(stream_options={"x": 1}), asked(stream_options={"include_usage": True})
    assert plain.stream_options
    assert not plain.usage_wanted
    assert wanted.usage_wanted
    assert asked(stream_options=None).stream_options


def test_prompts_of_token_ids_are_counted_and_their_blocks_scaled() -> None:
    ids = list(range(1000, 2000))
    request = asked("text", prompt=ids).request
    assert request.prompt_tokens == 1000
    assert request.block_tokens == round(512 * 1000 / len(json.dumps(ids)))
    assert asked("text", prompt=[[1, 2], [3]]).request.prompt_tokens == 3


def test_strings_are_estimated_from_their_bytes() -> None:
    measure = Measure(bytes_per_token=2, block_bytes=8)
    request = asked("text", prompt="x" * 30, measure=measure).request
    assert (request.prompt_tokens, request.block_tokens) == (15, 4)
    assert asked("text", prompt="").request.prompt_tokens == 1
    assert asked("text").request.prompt_tokens == 1


def test_a_conversation_that_goes_on_keeps_its_leading_blocks() -> None:
    measure = Measure(block_bytes=32)
    first = asked(messages=MESSAGES * 5, measure=measure).request.blocks
    second = asked(messages=[*MESSAGES * 5, *MESSAGES], measure=measure).request.blocks
    assert len(first) == 5
    assert second[:5] == first
    assert len(second) > 5


def test_another_model_other_tools_or_another_system_prompt_share_no_block() -> None:
    measure = Measure(block_bytes=8)
    plain = asked(messages=MESSAGES * 5, measure=measure).request.blocks
    other_model = asked(messages=MESSAGES * 5, model="n", measure=measure).request.blocks
    other_tools = asked(messages=MESSAGES * 5, tools=[{"type": "function"}], measure=measure).request.blocks
    assert not set(plain) & set(other_model)
    assert not set(plain) & set(other_tools)


def test_no_more_blocks_are_hashed_than_wanted() -> None:
    assert (
        len(asked("text", prompt="x" * 999, measure=Measure(block_bytes=8, hashed_blocks=3)).request.blocks)
        == 3
    )
    assert asked("text", prompt="x" * 999, measure=Measure(hashed_blocks=0)).request.blocks == ()


@pytest.mark.parametrize(
    ("kind", "body", "param", "message"),
    [
        ("chat", b"[]", None, "JSON object"),
        ("chat", b"", None, "not valid JSON"),
        ("chat", b'{"model":"m","messages":[]} x', None, "not valid JSON"),
        ("chat", b'{"model":"\xff","messages":[]}', None, "not valid JSON"),
        ("chat", b'{"model":"m","messages":' + b"[" * 100_000, None, "nested too deeply"),
        ("chat", b'{"messages":[]}', "model", "must provide 'model'"),
        ("chat", b'{"model":3,"messages":[]}', "model", "model: Expected `str`"),
        ("chat", b'{"model":"m"}', "messages", "missing"),
        ("chat", b'{"model":"m","messages":"hi"}', "messages", "must be an array"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":"5"}', "max_tokens", "Expected `int"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":-5}', "max_tokens", ">= 0"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":1%b}' % (b"0" * 400), "max_tokens", "<= 92"),
        ("chat", b'{"model":"m","messages":[],"priority":-1%b}' % (b"0" * 400), "priority", ">= -92"),
        ("chat", b'{"model":"m","messages":[],"stream":"yes"}', "stream", "Expected `bool"),
        ("chat", b'{"model":"m","messages":[],"stream_options":1}', "stream_options", "Expected `object"),
        (
            "chat",
            b'{"model":"m","messages":[],"stream_options":{"include_usage":1}}',
            "stream_options.include_usage",
            "Expected `bool",
        ),
        ("text", b'{"model":"m","prompt":{}}', "prompt", "string or an array"),
        ("embedding", b'{"model":"m"}', "input", "must provide 'input'"),
        ("messages", b'{"model":"m"}', "messages", "missing"),
    ],
)
def test_what_no_engine_could_answer_is_refused_by_the_name_of_its_field(
    kind: Kind, body: bytes, param: str | None, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        describe(body, kind, id="r", measure=Measure())
    assert caught.value.param == param


@pytest.mark.parametrize("field", ["bytes_per_token", "block_bytes", "max_tokens", "hashed_blocks"])
def test_a_measure_that_cannot_measure_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is -1"):
        Measure(**{field: -1})

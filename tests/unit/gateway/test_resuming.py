"""Which streams can go on elsewhere, and what the next engine is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millrace.core.prompt import Kind
from millrace.gateway.framing import FramingError
from millrace.gateway.resuming import Continued, Dialect, continuation, dialect_of, resumable
from millrace.gateway.splice import with_token_ids
from millrace.gateway.transcript import Transcript

BOTH = frozenset(("millrace", "vllm"))


def transcript() -> Transcript:
    found = Transcript(told=False, wary=False)
    found.take(
        b'data: {"id":"x","created":7,"model":"m","choices":[{"index":0,"text":"t","prompt_token_ids":[5,6],'
        b'"token_ids":[1,2,3]}]}\n\n'
    )
    return found


def judged(kind: Kind = "text", **fields: Any) -> frozenset[Dialect] | None:
    body = {"model": "m", "prompt": "p"} | fields
    found = resumable(json.dumps(body).encode(), kind)
    return None if found is None else found.dialects


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1, "best_of": 1},
        {"prompt": [1, 2]},
        {"echo": False, "stop": [], "tools": None, "presence_penalty": 0.0, "logprobs": None},
        {"response_format": {"type": "text"}, "tools": []},
    ],
)
def test_a_single_answer_goes_on_anywhere(fields: dict[str, Any]) -> None:
    assert judged(**fields) == BOTH


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"best_of": 2}, {"prompt": ["p", "q"]}, {"prompt": [[1], [2]]}, {"resume": {"x": 1}}]
)
def test_several_answers_go_on_nowhere(fields: dict[str, Any]) -> None:
    assert judged(**fields) is None


@pytest.mark.parametrize(
    "fields",
    [{"stop": "x"}, {"echo": True}, {"logprobs": 0}, {"frequency_penalty": -1}, {"bad_words": ["x"]}],
)
def test_what_looks_back_goes_on_at_engines_of_ours_alone(fields: dict[str, Any]) -> None:
    assert judged(**fields) == frozenset(("millrace",))


def test_bodies_that_cannot_be_read_or_are_no_text_go_on_nowhere() -> None:
    assert judged(return_token_ids="yes") is None
    assert judged(kind="messages") is None


def test_engines_say_how_they_go_on() -> None:
    assert dialect_of([{"id": "m", "resume": True}]) == "millrace"
    assert dialect_of([{"id": "m", "owned_by": "vllm"}, {"id": "n", "owned_by": "vllm"}]) == "vllm"
    assert dialect_of([{"id": "m", "owned_by": "vllm"}, {"id": "n"}]) is None
    assert dialect_of([]) is None


def asked(kind: Kind, dialect: Dialect, **fields: Any) -> Any:
    body = {"model": "m", "stream": True} | fields
    return json.loads(continuation(json.dumps(body).encode(), kind, dialect, transcript()))


def test_engines_of_ours_are_asked_the_same_again_with_the_answer_so_far() -> None:
    body = asked("chat", "millrace", messages=[], max_tokens=9)
    resume = {"prompt_token_ids": [5, 6], "token_ids": [1, 2, 3]}
    assert body == {"model": "m", "stream": True, "messages": [], "max_tokens": 9, "resume": resume}


@pytest.mark.parametrize(
    ("kind", "fields", "limit"),
    [
        ("text", {"max_tokens": 9}, 6),
        ("text", {}, 13),
        ("text", {"max_tokens": None, "truncate_prompt_tokens": 2}, None),
        ("chat", {"messages": [], "max_tokens": 9, "max_completion_tokens": 8}, 5),
        ("chat", {"messages": [], "max_tokens": 9, "logprobs": False}, 6),
        ("chat", {"messages": []}, None),
    ],
)
def test_vllm_is_asked_to_complete_prompt_and_answer(
    kind: Kind, fields: dict[str, Any], limit: int | None
) -> None:
    body = asked(kind, "vllm", **fields)
    assert body == {"model": "m", "stream": True, "prompt": [5, 6, 1, 2, 3], "max_tokens": limit}


def test_vllm_counts_the_least_length_from_where_it_goes_on() -> None:
    assert asked("text", "vllm", min_tokens=5)["min_tokens"] == 2
    assert asked("text", "vllm", min_tokens=2)["min_tokens"] == 0


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"choices":[{}]}',
        b'{"choices":3}',
        b'{"choices":[1]}',
        b'{"choices":[{"text":"t"}]}',
        b'{"a":\xff}',
    ],
)
def test_events_that_cannot_be_read_are_an_error(data: bytes) -> None:
    continued = Continued(transcript(), "chat", "vllm", told=False)
    with pytest.raises(FramingError):
        continued(b"data: %b\n\n" % data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"index":0,"delta":{"role":"assistant"}}],"prompt_token_ids":[5,6]}',
        b'{"choices":[{"index":0,"text":"t","prompt_token_ids":[5,6],"token_ids":[1]}]}',
    ],
)
def test_an_answer_that_begins_anew_is_an_error(data: bytes) -> None:
    with pytest.raises(FramingError, match="anew"):
        Continued(transcript(), "chat", "millrace", told=False)(b"data: %b\n\n" % data)


def test_events_that_are_no_text_pass_as_they_are() -> None:
    continued = Continued(transcript(), "chat", "millrace", told=False)
    for event in (b": comment\n\n", b"data: [DONE]\n\n", b'data: {"error":{}}\n\n'):
        assert continued(event) == event


def test_the_field_is_put_in_or_changed_and_every_other_byte_is_left() -> None:
    assert with_token_ids(b'{ "a": 1}', said=False) == b'{"return_token_ids":true, "a": 1}'
    said = b'{"a": {"return_token_ids": 1}, "return_token_ids" : false }'
    assert with_token_ids(said, said=True) == said.replace(b": false", b": true")
    assert with_token_ids(said + b" " * (1 << 20), said=True) is None

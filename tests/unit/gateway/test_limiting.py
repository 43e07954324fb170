"""Limits in bodies are lowered, and reminders added, with every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.prompt import Kind
from millrace.gateway.limiting import LIMITS, answers_asked, asked_tokens, with_limit, with_reminder
from millrace.gateway.splice import SCAN_LIMIT_BYTES

LIMIT_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
VALUES = st.none() | st.integers(0, 9000)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("chat", b'{ "a" : 1.50}', b'{"max_tokens":7, "a" : 1.50}'),
        (
            "text",
            b'{"prompt":"max_tokens","max_tokens" : 5000 }',
            b'{"prompt":"max_tokens","max_tokens" : 7 }',
        ),
        (
            "chat",
            b'{"max_tokens":3,"max_completion_tokens":5e3}',
            b'{"max_tokens":3,"max_completion_tokens":7}',
        ),
        ("chat", b'{"max_tokens":null,"a":{"max_tokens":99}}', b'{"max_tokens":7,"a":{"max_tokens":99}}'),
        ("responses", b'{"max_tokens":9}', b'{"max_output_tokens":7,"max_tokens":9}'),
        ("messages", b'{"max\\u005ftokens":9,"x":1}', b'{"max\\u005ftokens":7,"x":1}'),
        ("text", b'{"min_tokens":90,"x":1}', b'{"max_tokens":7,"min_tokens":7,"x":1}'),
        ("text", b'{"min_tokens":"x","max_tokens":8}', b'{"min_tokens":"x","max_tokens":7}'),
    ],
)
def test_a_limit_is_lowered_or_added(kind: Kind, before: bytes, after: bytes) -> None:
    assert with_limit(before, kind, 7) == after


@given(
    st.dictionaries(st.sampled_from((*LIMIT_FIELDS, "model", "n")), VALUES),
    st.sampled_from(("chat", "text", "messages", "responses")),
    st.integers(1, 9000),
)
def test_no_limit_is_raised_and_nothing_else_changes(body: dict[str, Any], kind: Kind, tokens: int) -> None:
    data = json.dumps({"x": "}\\", **body}).encode()
    asked, limited = asked_tokens(data, kind), with_limit(data, kind, tokens)
    assert limited is not None
    found, after = json.loads(limited), asked_tokens(limited, kind)
    assert after is not None
    assert after <= min(tokens, tokens if asked is None else asked)
    for name in found:
        if name not in (*LIMITS[kind], "min_tokens"):
            assert found[name] == {"x": "}\\", **body}[name]
        elif body.get(name) is None:
            assert found[name] in (None, tokens)
        else:
            assert found[name] == min(body[name], tokens)


@pytest.mark.parametrize(
    ("kind", "body", "answers"),
    [
        ("chat", b'{"n":3}', 3),
        ("chat", b'{"n":null,"prompt":["a","b"]}', 1),
        ("text", b'{"prompt":"a"}', 1),
        ("text", b'{"prompt":["a","b"],"n":2}', 4),
        ("text", b'{"prompt":[1,2,3],"n":0}', 1),
        ("text", b'{"prompt":[[1,2],[3]],"n":"x"}', 2),
        ("responses", b'{"n":3}', 1),
    ],
)
def test_answers_to_one_request_are_counted(kind: Kind, body: bytes, answers: int) -> None:
    assert answers_asked(body, kind) == answers


def test_a_body_too_large_to_search_stays_as_it_is() -> None:
    filler = "x" * SCAN_LIMIT_BYTES
    assert with_limit(json.dumps({"x": filler, "max_tokens": 9}).encode(), "chat", 7) is None
    assert with_limit(json.dumps({"x": filler}).encode(), "chat", 7) is not None
    assert (
        with_reminder(json.dumps({"messages": [{"role": "user", "content": filler}]}).encode(), "x") is None
    )


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            '[{"role":"user","content":"hi [\\""}]',
            '[{"role":"user","content":"hi [\\"\\n\\nBe \\"brief\\""}]',
        ),
        (
            '[{"role":"system","content":"s"}, {"content": [{"type":"text","text":"hi"} ], "role":"user"} ]',
            '[{"role":"system","content":"s"}, {"content": [{"type":"text","text":"hi"} '
            ',{"type":"text","text":"Be \\"brief\\""}], "role":"user"} ]',
        ),
        ('[{"role":"assistant","content":"hi"}]', None),
        ('[{"role":"user","content":"hi"},{"role":"tool","content":"hi"}]', None),
        ('[{"role":"user","content":null}]', None),
        ('[{"role":"user","content":[ ]}]', None),
        ('[{"role":"user"}]', None),
        ("[]", None),
        ("[3]", None),
    ],
)
def test_a_reminder_ends_the_last_message_of_the_user(messages: str, expected: str | None) -> None:
    body = '{"a": 1, "messages": %s, "b":2.0}'
    found = with_reminder((body % messages).encode(), 'Be "brief"')
    assert found == (None if expected is None else (body % expected).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"max_tokens":1%b}' % (b"0" * 400),
        b'{"max_tokens":1e99,"n":1%b}' % (b"0" * 5000),
        b'{"max_tokens":9,"n":1e99,"messages":[{"\xff":1,"role":"\xff","content":"\xff"}]}',
        b'{"max_tokens":9,"\xff":1}',
        b'{"max_tokens":9,"prompt":["\xff"],"messages":%b}' % (b"[" * 900 + b"]" * 900),
        b'{"max_tokens":9,"prompt":%b}' % (b"[" * 900 + b"]" * 900),
    ],
)
def test_odd_bodies_break_nothing(body: bytes) -> None:
    assert answers_asked(body, "text") >= 1
    limited = with_limit(body, "text", 7)
    assert limited is not None
    assert asked_tokens(limited, "text") == 7
    assert with_reminder(body, "Be brief.") is None

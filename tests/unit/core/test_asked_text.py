"""What a client asked last, out of bodies of every kind."""

from __future__ import annotations

import pytest

from millrace.core.asked_text import asked_text
from millrace.core.prompt import Kind

ANSWERED = b'[{"role":"user","content":"old"},{"role":"assistant","content":"said"}]'
ASKED = (
    b'[{"role":"user","content":"old"},{"role":"user","content":"new"},{"role":"assistant","content":"x"}]'
)
PARTS = (
    b'[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"},"b",{"text":1},'
    b'{"type":"input_text","text":"c"}]}]'
)


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("chat", b'{"messages":%b}' % ASKED, "new"),
        ("chat", b'{"messages":%b}' % ANSWERED, "old"),
        ("chat", b'{"messages":%b}' % PARTS, "a\nb\nc"),
        ("messages", b'{"messages":%b}' % ASKED, "new"),
        ("responses", b'{"input":"hello"}', "hello"),
        ("responses", b'{"input":%b}' % ASKED, "new"),
        ("text", b'{"prompt":"hello"}', "hello"),
        ("text", b'{"prompt":["a","b"]}', "a\nb"),
        ("text", b'{"prompt":[1,2,3]}', None),
        ("text", b'{"prompt":""}', None),
        ("chat", b'{"messages":[1,{"role":"system","content":"x"}]}', None),
        ("chat", b'{"messages":[{"role":"user","content":5}]}', None),
        ("chat", b'{"messages":{"role":"user"}}', None),
        ("chat", b'{"messages":', None),
        ("text", b'{"prompt":' + b"[" * 100_000, None),
        ("text", b'{"prompt":"\xff"}', None),
        ("embedding", b'{"input":"hello"}', None),
    ],
)
def test_the_last_words_of_the_user_are_found(kind: Kind, body: bytes, text: str | None) -> None:
    assert asked_text(body, kind) == text

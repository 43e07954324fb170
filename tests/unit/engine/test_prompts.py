"""Prompts in every form that clients send them."""

from __future__ import annotations

import asyncio

import pytest

from millrace.engine.chat import ChatTemplate
from millrace.engine.errors import ApiError
from millrace.engine.prompts import INLINE_CHARS, Prompts
from millrace.engine.protocol import Message
from millrace.engine.tokenizer import TextTokenizer
from tests.unit.engine.texts import byte_level

TOKENIZER = TextTokenizer(byte_level())
PROMPTS = Prompts(
    TOKENIZER, ChatTemplate("{% for m in messages %}{{ m.content }}|{% endfor %}", {}), vocab=400
)


def test_a_long_text_gets_the_same_tokens_as_its_pieces_would() -> None:
    text = "wheel " * INLINE_CHARS
    prompt = asyncio.run(PROMPTS.of_text(text, special=False))
    assert prompt.tokens == TOKENIZER.encode(text, special=False)


def test_content_that_is_missing_or_in_parts_becomes_one_text() -> None:
    parts: list[dict[str, object]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [Message(role="user", content=parts), Message(role="assistant")]
    assert asyncio.run(PROMPTS.of_chat(messages)).text == "a\nb||"


def test_a_checkpoint_without_template_cannot_chat() -> None:
    with pytest.raises(ApiError, match="no chat template; use /v1/completions"):
        asyncio.run(Prompts(TOKENIZER, None, vocab=400).of_chat([Message(role="user", content="a")]))


def test_a_template_that_refuses_is_a_bad_request() -> None:
    prompts = Prompts(TOKENIZER, ChatTemplate("{{ raise_exception('no system role') }}", {}), vocab=400)
    with pytest.raises(ApiError, match="no system role") as refused:
        asyncio.run(prompts.of_chat([Message(role="system", content="a")]))
    assert refused.value.body["error"]["param"] == "messages"

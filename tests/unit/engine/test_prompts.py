"""Prompts in every form that clients send them."""

from __future__ import annotations

import asyncio

import pytest

from millrace.engine.chat import ChatTemplate
from millrace.engine.errors import ApiError
from millrace.engine.prompts import INLINE_CHARS, Prompts
from millrace.engine.protocol import Message
from millrace.engine.tokenizer import TextTokenizer
from tests.unit.engine.texts import byte_level, sentence_pieces

TOKENIZER = TextTokenizer(byte_level())
CONTEXT_TOKENS = 60_000


def prompts(template: str | None = "{% for m in messages %}{{ m.content }}|{% endfor %}") -> Prompts:
    chat = None if template is None else ChatTemplate(template, {})
    return Prompts(TOKENIZER, chat, vocab=400, context_tokens=CONTEXT_TOKENS)


def test_a_long_text_gets_the_same_tokens_as_its_pieces_would() -> None:
    text = "wheel " * INLINE_CHARS
    prompt = asyncio.run(prompts().of_text(text, special=False))
    assert prompt.tokens == TOKENIZER.encode(text, special=False)


def test_content_that_is_missing_or_in_parts_becomes_one_text() -> None:
    parts: list[dict[str, object]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [Message(role="user", content=parts), Message(role="assistant")]
    assert asyncio.run(prompts().of_chat(messages, {})).text == "a\nb||"


def test_a_checkpoint_without_template_cannot_chat() -> None:
    with pytest.raises(ApiError, match="no chat template; use /v1/completions"):
        asyncio.run(prompts(None).of_chat([Message(role="user", content="a")], {}))


def test_a_template_that_refuses_is_a_bad_request() -> None:
    refusing = prompts("{{ raise_exception('no system role') }}")
    with pytest.raises(ApiError, match="no system role") as refused:
        asyncio.run(refusing.of_chat([Message(role="system", content="a")], {}))
    assert refused.value.body["error"]["param"] == "messages"


def test_a_text_that_no_context_could_hold_is_not_even_tokenised() -> None:
    longest = TOKENIZER.longest_token_chars
    assert longest
    with pytest.raises(ApiError, match=r"60000 tokens, which \d+ characters cannot fit") as refused:
        asyncio.run(prompts().of_text("a" * (longest * CONTEXT_TOKENS + 1), special=False))
    assert refused.value.body["error"]["code"] == "context_length_exceeded"


def test_tokens_that_may_stand_for_any_length_bound_no_text() -> None:
    assert TextTokenizer(sentence_pieces()).longest_token_chars is None


def test_other_requests_have_their_turn_while_many_prompts_are_tokenised() -> None:
    many = ["wheel " * 200] * 400

    async def turns() -> int:
        tokenising, count = asyncio.create_task(prompts().of_completion(many, special=False)), 0
        while not tokenising.done():
            await asyncio.sleep(0)
            count += 1
        assert len(await tokenising) == len(many)
        return count

    assert asyncio.run(turns()) > len(many) // 10

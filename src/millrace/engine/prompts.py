"""From what a request says to the tokens of its prompts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from millrace.engine.chat import ChatTemplate
from millrace.engine.errors import ApiError
from millrace.engine.protocol import Message
from millrace.engine.tokenizer import TextTokenizer

# Tokenising this much takes about a millisecond; with more of it the event loop would stand still.
INLINE_CHARS = 8192


class Prompt(Struct, frozen=True):
    """One prompt: its tokens, and its text where it was given as text."""

    tokens: list[int]
    text: str | None = None


class Prompts:
    """Makes prompts with one checkpoint's tokenizer and chat template."""

    def __init__(self, tokenizer: TextTokenizer, template: ChatTemplate | None, vocab: int) -> None:
        self._tokenizer, self._template, self._vocab = tokenizer, template, vocab

    async def of_completion(self, given: str | list[Any], *, special: bool) -> list[Prompt]:
        """A text, a list of texts, tokens, or a list of lists of tokens."""
        single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        several: list[Any] = [given] if single else list(given)
        if not several:
            raise ApiError("prompt must not be an empty list", param="prompt")
        return [await self._completion(one, special=special) for one in several]

    async def of_chat(self, messages: list[Message], *, special: bool = False, **values: Any) -> Prompt:
        """Messages, written as the checkpoint's chat template wants; `values` are more for the template."""
        if self._template is None:
            raise ApiError("This model has no chat template; use /v1/completions", param="messages")
        plain = [_plain(i, message) for i, message in enumerate(messages)]
        try:
            text = self._template.render(plain, **values)
        except ValueError as error:
            raise ApiError(str(error), param="messages") from error
        return await self.of_text(text, special=special)

    async def of_text(self, text: str, *, special: bool) -> Prompt:
        """A text as it is."""
        if len(text) > INLINE_CHARS:
            return Prompt(await asyncio.to_thread(self._tokenizer.encode, text, special=special), text)
        return Prompt(self._tokenizer.encode(text, special=special), text)

    async def _completion(self, given: Any, *, special: bool) -> Prompt:
        if isinstance(given, str):
            return await self.of_text(given, special=special)
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            raise ApiError("prompt must be text or token ids, or a list of those", param="prompt")
        if wrong := next((token for token in given if not 0 <= token < self._vocab), None):
            raise ApiError(
                f"prompt: token {wrong} is not below {self._vocab}, the vocabulary", param="prompt"
            )
        return Prompt(given)


def _plain(index: int, message: Message) -> dict[str, Any]:
    """A message with its text as one string, which is what templates of text models expect."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    content = message.content
    if isinstance(content, list):
        if wrong := next((part for part in content if not isinstance(part.get("text"), str)), None):
            kind = wrong.get("type")
            raise ApiError(f"messages[{index}]: content of type {kind!r} is not served", param="messages")
        content = "\n".join(part["text"] for part in content)
    return fields | {"content": content or ""}

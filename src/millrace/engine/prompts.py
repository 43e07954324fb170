"""From what a request says to the tokens of its prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from millrace.engine.chat import ChatTemplate
from millrace.engine.errors import ApiError, beyond_any_context
from millrace.engine.protocol import ChatBody, Message, TokenizeBody
from millrace.engine.tokenizer import TextTokenizer

# Tokenising this much takes a few milliseconds; with more of it the event loop would stand still.
INLINE_CHARS = 8192
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Prompt(Struct, frozen=True):
    """One prompt: its tokens, and its text where it was given as text."""

    tokens: list[int]
    text: str | None = None


def separate(given: str | list[Any]) -> list[Any]:
    """The prompts of a completion: a text, a list of texts, tokens, or a list of lists of tokens."""
    single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    return [given] if single else list(given)


def template_values(body: ChatBody | TokenizeBody) -> dict[str, object]:
    """What a request says to the chat template, beside its messages."""
    asked = {"add_generation_prompt": body.add_generation_prompt, **(body.chat_template_kwargs or {})}
    return {**asked, "tools": body.tools}


class Prompts:
    """Makes prompts with one checkpoint's tokenizer and chat template, for contexts of `context_tokens`.

    Texts longer than `inline_chars` become tokens in a thread.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: ChatTemplate | None,
        *,
        vocab: int,
        context_tokens: int,
        inline_chars: int = INLINE_CHARS,
    ) -> None:
        self._tokenizer, self._template, self._vocab = tokenizer, template, vocab
        self._context_tokens, self._inline_chars = context_tokens, inline_chars

    async def of_question(self, body: TokenizeBody) -> Prompt:
        """What `/tokenize` is asked for: a text, or messages."""
        if body.messages is not None:
            special = bool(body.add_special_tokens)
            return await self.of_chat(body.messages, template_values(body), special=special)
        if body.prompt is None:
            raise ApiError("prompt or messages must be given", param="prompt")
        return await self.of_text(body.prompt, special=body.add_special_tokens is not False)

    async def of_completion(self, given: str | list[Any], *, special: bool) -> list[Prompt]:
        """What `separate` makes of it, as tokens."""
        several = separate(given)
        if not several:
            raise ApiError("prompt must not be an empty list", param="prompt")
        # All of them together: a thousand short prompts hold up the event loop like a long one.
        if sum(len(one) for one in several if isinstance(one, str | list)) > self._inline_chars:
            return await asyncio.to_thread(self._completions, several, special)
        return self._completions(several, special)

    async def of_chat(
        self, messages: list[Message], values: Mapping[str, Any], *, special: bool = False
    ) -> Prompt:
        """Messages, written as the checkpoint's chat template wants; `values` are more for the template."""
        if self._template is None:
            raise ApiError("This model has no chat template; use /v1/completions", param="messages")
        if not messages:
            raise ApiError("messages must have at least one message", param="messages")
        try:
            plain = [_plain(f"messages[{i}]", message) for i, message in enumerate(messages)]
            text = self._template.render(plain, values)
        except RecursionError as error:
            raise ApiError("messages are nested too deeply", param="messages") from error
        except ValueError as error:
            raise ApiError(str(error), param="messages") from error
        return await self.of_text(text, special=special, param="messages")

    async def of_text(self, text: str, *, special: bool, param: str = "prompt") -> Prompt:
        """A text as it is."""
        if len(text) > self._inline_chars:
            return await asyncio.to_thread(self._text, text, special, param)
        return self._text(text, special, param)

    def _completions(self, several: Sequence[Any], special: bool) -> list[Prompt]:
        return [self._completion(one, special) for one in several]

    def _completion(self, given: Any, special: bool) -> Prompt:
        if isinstance(given, str):
            return self._text(given, special, "prompt")
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            raise ApiError("prompt must be text or token ids, or a list of those", param="prompt")
        if wrong := next((token for token in given if not 0 <= token < self._vocab), None):
            raise ApiError(
                f"prompt: token {wrong} is not below {self._vocab}, the vocabulary", param="prompt"
            )
        return Prompt(given)

    def _text(self, text: str, special: bool, param: str) -> Prompt:
        """Tokenise, unless even the longest tokens would be too many: that takes a second for a megabyte."""
        longest = self._tokenizer.longest_token_chars
        if longest is not None and len(text) > longest * self._context_tokens:
            raise beyond_any_context(len(text), self._context_tokens, param=param)
        return Prompt(self._tokenizer.encode(text, special=special), text)


def _plain(where: str, message: Message) -> dict[str, Any]:
    """A message with its text as one string, which is what templates of text models expect."""
    if message.role not in ROLES:
        raise ApiError(f"{where}.role must be one of {', '.join(ROLES)}", param="messages")
    fields: dict[str, Any] = msgspec.to_builtins(message)
    content = message.content
    if isinstance(content, list):
        content = "\n".join(_part(f"{where}.content[{i}]", part) for i, part in enumerate(content))
    return fields | {"content": content or ""}


def _part(where: str, part: dict[str, Any]) -> str:
    """The text of one part of a message's content."""
    if (kind := part.get("type", "text")) != "text":
        raise ApiError(f"{where}: content of type {kind!r} is not served", param="messages")
    text = part.get("text")
    if not isinstance(text, str):
        raise ApiError(f"{where}.text is missing or not a text", param="messages")
    return text

"""From tokens to text one token at a time, without ever showing half a character.

Byte-level tokens (GPT-2, Llama 3, Qwen) are bytes, decoded as they come; other tokenizers are decoded in
a sliding window of tokens, as vLLM and text-generation-inference do.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

# Characters that end in this one may still become something else when more tokens come.
UNFINISHED = "\ufffd"


class Detokenizer(Protocol):
    """Turns one sequence's tokens into text."""

    def push(self, token: int) -> str:
        """Take a token and return the text that is now certain."""

    def flush(self) -> str:
        """Return what is left when no more tokens come; incomplete characters become U+FFFD."""


class ByteDetokenizer:
    """For tokens that are bytes: `bytes_of` maps each token to its own."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the characters that the token completes."""
        return self._decoder.decode(self._bytes_of(token))

    def flush(self) -> str:
        """Return what an unfinished character decodes to."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For any tokenizer: decodes the last tokens with and without the newest and returns the difference."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Return the text by which the window grew, nothing while it ends within a character."""
        self._tokens.append(token)
        return "" if (text := self._grown()).endswith(UNFINISHED) else self._show(text)

    def flush(self) -> str:
        """Return the rest of the window."""
        return self._show(self._grown())

    def _grown(self) -> str:
        before = self._decode(self._tokens[: self._shown])
        return self._decode(self._tokens)[len(before) :]

    def _show(self, text: str) -> str:
        # The tokens shown last stay as context: whether a word starts with a space may depend on them.
        if text:
            del self._tokens[: self._shown]
            self._shown = len(self._tokens)
        return text

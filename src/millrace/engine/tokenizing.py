"""Counts a prompt's tokens for somebody without an engine: what `/tokenize` says, from the same files.

Needs tokenizers and jinja2, but not torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millrace.engine.chat import load_chat_template
from millrace.engine.errors import ApiError
from millrace.engine.prompts import Prompts
from millrace.engine.protocol import TokenizeBody, parse
from millrace.engine.tokenizer import TextTokenizer

INLINE_CHARS = 2048
"""Half a millisecond's work. More of it is left to a thread, since streams wait for who works here."""
LONGEST_TOKENS = 1 << 20


class _Question(TokenizeBody, kw_only=True):
    chat_template: Any = None


class PromptTokenizer:
    """Makes tokens of prompts as an engine does that serves this checkpoint."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    @classmethod
    def load(cls, path: Path) -> PromptTokenizer:
        """Read a checkpoint's folder, or its `tokenizer.json`. Raises ValueError."""
        folder = path.parent if path.name == "tokenizer.json" else path
        prompts = Prompts(
            TextTokenizer.load(folder),
            load_chat_template(folder),
            vocab=1 << 31,
            context_tokens=LONGEST_TOKENS,
            inline_chars=INLINE_CHARS,
        )
        return cls(prompts)

    async def tokens_of(self, question: bytes) -> list[int] | None:
        """Return the tokens that `/tokenize` would answer this body with; None if it would refuse it.

        None too for a request that brings its own chat template, which an engine may take or not.
        """
        try:
            body = parse(question, _Question)
            if body.chat_template is not None:
                return None
            return (await self._prompts.of_question(body)).tokens
        except ApiError:
            return None

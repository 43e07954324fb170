"""The words of a request: what its client asked last, out of an OpenAI-shaped body.

Source: Clairvoyant, which looks at the last message of the user.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from millrace.core.prompt import PROMPT_FIELD, Kind


class _Fields(Struct):
    messages: Any = None
    prompt: Any = None
    input: Any = None


_decode = msgspec.json.Decoder(_Fields).decode


def asked_text(body: bytes, kind: Kind) -> str | None:
    """Return what is asked in a body that could be described; None if that is no text, or makes no answer."""
    if kind == "embedding":
        return None
    try:
        said = getattr(_decode(body), PROMPT_FIELD[kind])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(said, list) and kind != "text":
        asked = (one.get("content") for one in reversed(said) if isinstance(one, dict) and _is_user(one))
        said = next(asked, None)
    text = said if isinstance(said, str) else _joined(said if isinstance(said, list) else ())
    return text or None


def _is_user(message: dict[str, Any]) -> bool:
    return message.get("role") == "user"


def _joined(parts: Iterable[Any]) -> str:
    """Join the texts among the parts of a message, or the first of several prompts."""
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))

"""Lowers the limit of an answer in a client's body, or adds a reminder to its last message, by splicing.

Every other byte stays as it was.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from millrace.core.prompt import Kind
from millrace.gateway.splice import SCAN_LIMIT_BYTES, items, members

LIMITS: dict[Kind, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "text": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "embedding": (),
}
"""The fields that limit an answer, the one that counts first; the last is the one that every engine knows."""

_NULL = b"null"


class _Limits(Struct):
    max_tokens: Raw = Raw()
    max_completion_tokens: Raw = Raw()
    max_output_tokens: Raw = Raw()
    min_tokens: Raw = Raw()
    n: Raw = Raw()
    prompt: Raw = Raw()


_list = msgspec.json.Decoder(list[Raw]).decode
_decode = msgspec.json.Decoder(_Limits).decode


def asked_tokens(body: bytes, kind: Kind) -> int | None:
    """Return the limit that a body which was described asks for, None if it asks for none."""
    said = _decode(body)
    values = (bytes(getattr(said, name)) for name in LIMITS[kind])
    return next((_count(value) for value in values if value not in (b"", _NULL)), None)


def answers_asked(body: bytes, kind: Kind) -> int:
    """Return how many answers a body that was described asks for: an engine counts their tokens together."""
    if kind not in ("chat", "text"):
        return 1
    said = _decode(body)
    prompts = _prompts(bytes(said.prompt)) if kind == "text" else 1
    return prompts * max(1, _count(bytes(said.n)) or 1)


def _prompts(prompt: bytes) -> int:
    """Return how many prompts there are: several come as a list of texts, or of lists of token ids."""
    if prompt[:1] != b"[" or prompt[1:].lstrip()[:1] not in (b'"', b"["):
        return 1
    try:
        return len(_list(prompt))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1


def _count(value: bytes) -> int | None:
    """Return a number of JSON; None for what is none, or beyond all bounds."""
    try:
        return round(float(value))
    except (ValueError, OverflowError):
        return None


def with_limit(body: bytes, kind: Kind, tokens: int) -> bytes | None:
    """Return the body with every limit above so many tokens lowered to that, or one added if it has none.

    `min_tokens` is lowered too, since engines refuse one above the limit. `kind` is of requests whose
    answers have a length. None if the body is too large to be searched.
    """
    said, names, start = _decode(body), LIMITS[kind], body.index(b"{") + 1
    unlimited = asked_tokens(body, kind) is None
    present = [name for name in (*names, "min_tokens") if bytes(getattr(said, name))]
    if present and len(body) > SCAN_LIMIT_BYTES:
        return None
    spans = [
        (begin, end)
        for key, begin, end in (members(body, start - 1) if present else ())
        if _name(key) in present and _is_above(body[begin:end], tokens, null=unlimited)
    ]
    for begin, end in reversed(spans):
        body = body[:begin] + b"%d" % tokens + body[end:]
    if not set(present) & set(names):
        body = b'%b"%b":%d,%b' % (body[:start], names[-1].encode(), tokens, body[start:])
    return body


def _is_above(value: bytes, tokens: int, *, null: bool) -> bool:
    """Whether a limit is above this one; `null` says whether one that is not there counts as such."""
    if value == _NULL:
        return null
    try:
        return float(value) > tokens
    except ValueError:
        return False


def with_reminder(body: bytes, reminder: str) -> bytes | None:
    """Return the body of a chat with a reminder at the end of its last message.

    None if that is not its user's, has no text, or would take too long to find.
    """
    if len(body) > SCAN_LIMIT_BYTES:
        return None
    messages = _last_value(body, "messages", body.index(b"{"))
    last = messages and _last_item(body, messages[0])
    if not last or body[last[0] : last[0] + 1] != b"{":
        return None
    role, content = (_last_value(body, name, last[0]) for name in ("role", "content"))
    if role is None or content is None or body[slice(*role)] != b'"user"':
        return None
    end = content[1] - 1
    if body[content[0] : content[0] + 1] == b'"':
        return body[:end] + msgspec.json.encode(f"\n\n{reminder}")[1:-1] + body[end:]
    if body[content[0] : content[0] + 1] != b"[" or not body[content[0] + 1 : end].strip():
        return None
    part = msgspec.json.encode({"type": "text", "text": reminder})
    return b"%b,%b%b" % (body[:end], part, body[end:])


def _name(key: bytes) -> str:
    """Return what a key says; one that is no UTF-8 says nothing."""
    try:
        return msgspec.json.decode(key, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _last_item(body: bytes, opening: int) -> tuple[int, int] | None:
    last = None
    for span in items(body, opening):
        last = span
    return last


def _last_value(body: bytes, name: str, opening: int) -> tuple[int, int] | None:
    """Find a field's value in the object whose brace is at `opening`; the last one counts."""
    found = None
    for key, start, end in members(body, opening):
        if _name(key) == name:
            found = start, end
    return found

"""Changes single fields of a client's body by splicing bytes: usage or ids are asked for, a model renamed.

Decoding and encoding a body again would reorder, round or drop what an engine might care about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

SCAN_LIMIT_BYTES = 1 << 20

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_MODEL = re.compile(rb'(?<!\\)"model"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")')
_SPACE = b" \t\r\n"


def with_usage(body: bytes, *, stream_options: bool) -> bytes | None:
    """Return the body with `stream_options.include_usage` set to true, every other byte as it was.

    `body` is a valid, non-empty JSON object; `stream_options` says whether it has that field at its top
    level, as an object or null. None when finding the field would take too long.
    """
    if not stream_options:
        start = body.index(b"{") + 1
        return b'%b"stream_options":{"include_usage":true},%b' % (body[:start], body[start:])
    if len(body) > SCAN_LIMIT_BYTES:
        return None
    span = _value_span(body, "stream_options", body.index(b"{"))
    assert span is not None
    value = body[span[0] : span[1]]
    return body[: span[0]] + _including_usage(value) + body[span[1] :]


def with_token_ids(body: bytes, *, said: bool) -> bytes | None:
    """Return the body with `return_token_ids` set to true; `said`: it has that field at its top level.

    None when finding the field would take too long.
    """
    start = body.index(b"{") + 1
    if not said:
        return b'%b"return_token_ids":true,%b' % (body[:start], body[start:])
    span = _value_span(body, "return_token_ids", start - 1) if len(body) <= SCAN_LIMIT_BYTES else None
    return None if span is None else body[: span[0]] + b"true" + body[span[1] :]


def with_model(body: bytes, model: str) -> bytes:
    """Return the body, a valid JSON object that names a model, with this model's name in its place."""
    found = list(_MODEL.finditer(body))
    alone = len(found) == 1 and b"\\u00" not in body  # a key can be spelt with escapes
    span = found[0].span(1) if alone else _value_span(body, "model", body.index(b"{"))
    assert span is not None
    return body[: span[0]] + msgspec.json.encode(model) + body[span[1] :]


def _including_usage(options: bytes) -> bytes:
    if options == b"null":
        return b'{"include_usage":true}'
    span = _value_span(options, "include_usage", 0)
    if span is not None:
        return options[: span[0]] + b"true" + options[span[1] :]
    comma = b"" if not options[1:-1].strip(_SPACE) else b","
    return b'{"include_usage":true%b%b' % (comma, options[1:])


def _value_span(text: bytes, key: str, opening: int) -> tuple[int, int] | None:
    """Find the value of `key` in the object whose brace is at `opening`; the last one if the key repeats."""
    found = None
    for name, start, end in members(text, opening):
        if msgspec.json.decode(name, type=str) == key:
            found = start, end
    return found


def members(text: bytes, opening: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each member of the object whose brace is at `opening`: its key's token, and its value's span."""
    depth, key, start = 0, b"", -1
    for match in _TOKEN.finditer(text, opening):
        token = match[0]
        if token in b"{[":
            depth += 1
        elif depth == 1 and token[:1] == b'"' and start < 0:
            key = token
        elif depth == 1 and token == b":":
            start = match.end()
        elif depth == 1 and token in b",}":
            if start >= 0:
                yield key, *_trimmed(text, start, match.start())
            start = -1
        if token in b"}]":
            depth -= 1
            if not depth:
                return


def items(text: bytes, opening: int) -> Iterator[tuple[int, int]]:
    """Yield the span of each object in the array whose bracket is at `opening`."""
    depth, start = 0, -1
    for match in _TOKEN.finditer(text, opening):
        token = match[0]
        if token in b"{[":
            depth += 1
            start = match.start() if depth == 2 else start
        elif token in b"}]":
            depth -= 1
            if depth == 1:
                yield start, match.end()
            elif not depth:
                return


def _trimmed(text: bytes, start: int, end: int) -> tuple[int, int]:
    value = text[start:end]
    return start + len(value) - len(value.lstrip(_SPACE)), start + len(value.rstrip(_SPACE))

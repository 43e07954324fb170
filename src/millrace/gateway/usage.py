"""Reads token counts from answers, and keeps streams cut at whole events. Pure.

OpenAI-shaped engines say what an answer cost in a `usage` object: at the end of a JSON body, or in one
extra event with no choices before `[DONE]`. That event is taken out again for clients who did not ask.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from millrace.core.prompt import Count, Kind

EVENT_LIMIT_BYTES = 1 << 20
USAGE_EVENTS: frozenset[Kind] = frozenset(("chat", "text"))
END_MARKS: dict[Kind, tuple[bytes, ...]] = {
    "chat": (b"[DONE]",),
    "text": (b"[DONE]",),
    "embedding": (b"[DONE]",),
    "messages": (b"message_stop",),
    "responses": (b"response.completed", b"response.failed", b"response.incomplete"),
}

_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_EVENT = re.compile(rb".+?(?:\n\n|\n\r\n|\r\r|\Z)", re.DOTALL)
_DATA_LINE = re.compile(rb"^data: ?([^\r\n]*)", re.MULTILINE)


class Usage(Struct, frozen=True):
    """Tokens an answer took, as the engine counted; None is what it did not say."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


NO_USAGE = Usage()


class _Details(Struct):
    cached_tokens: Count | None = None


class _UsageFields(Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: Count | None = None


class _Whole(Struct):
    usage: _UsageFields | None = None


class _Tail(_Whole):
    choices: list[Any] | None = None


_decode_tail = msgspec.json.Decoder(_Tail).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


def usage_of(body: bytes) -> Usage:
    """Read the usage of a complete JSON answer; what cannot be read is unknown."""
    try:
        return _read(_decode_whole(body).usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NO_USAGE


def last_usage(tail: bytes) -> Usage:
    """Read the last usage object in the last bytes of an answer of any shape."""
    for match in reversed(list(_USAGE.finditer(tail))):
        text = tail[match.end() :].decode("utf-8", "replace")
        try:
            found, _ = json.JSONDecoder().raw_decode(text)
            return _read(msgspec.convert(found, _UsageFields))
        except (ValueError, RecursionError):
            continue
    return NO_USAGE


def _read(usage: _UsageFields | None) -> Usage:
    if usage is None:
        return NO_USAGE
    details = usage.prompt_tokens_details or usage.input_tokens_details
    return Usage(
        usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens,
        usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens,
        usage.cache_read_input_tokens if details is None else details.cached_tokens,
    )


def events_in(block: bytes) -> list[bytes]:
    """Split whole events."""
    return _EVENT.findall(block)


def data_of(event: bytes) -> bytes:
    """Return an event's data; a comment has none."""
    return b"\n".join(_DATA_LINE.findall(event))


class EventSieve:
    """Passes an event stream through in whole events, and may take the usage event out of it."""

    __slots__ = ("_before", "_last", "_rest", "_strip", "_usage")

    def __init__(self, *, strip: bool) -> None:
        self._strip = strip
        self._rest = b""
        self._usage = NO_USAGE
        self._before = self._last = b""

    @property
    def at_boundary(self) -> bool:
        """Whether nothing is held back."""
        return not self._rest

    def passes(self, framed: bytes) -> bool:
        """Whether one HTTP chunk holds whole events, none of them the usage event, with nothing held back."""
        if self._rest or not framed.endswith(b"\n\n\r\n") or _NO_CHOICES.search(framed):
            return False
        self._before, self._last = self._last, framed
        return True

    def pass_unread(self, framed: bytes) -> None:
        """Note that whole events were passed on, none of them the usage event."""
        self._before, self._last = self._last, framed

    def feed(self, payload: bytes) -> bytes:
        """Return what may be passed on now: every complete event, or all of an event beyond the limit."""
        searched = max(0, len(self._rest) - 2)
        data = self._rest + payload if self._rest else payload
        end = _last_boundary(data, searched)
        if not end and len(data) > EVENT_LIMIT_BYTES:
            end = len(data)
        whole, self._rest = data[:end], data[end:]
        return self._pass(whole) if whole else b""

    def end(self) -> bytes:
        """Return what was held back when the stream ends."""
        rest, self._rest = self._rest, b""
        return self._pass(rest) if rest else b""

    def usage(self) -> Usage:
        """The stream's usage, as far as it was seen."""
        if self._usage is NO_USAGE:
            self._usage = last_usage(self.tail)
        return self._usage

    @property
    def tail(self) -> bytes:
        """The last that was passed on: two blocks of events, as they came."""
        return self._before + self._last

    def complete(self, kind: Kind) -> bool:
        """Whether the stream's end mark was seen."""
        return any(mark in self._last or mark in self._rest for mark in END_MARKS[kind])

    def _pass(self, block: bytes) -> bytes:
        self._before, self._last = self._last, block
        if not _NO_CHOICES.search(block):
            return block
        return b"".join([event for event in events_in(block) if not self._is_unasked(event)])

    def _is_unasked(self, event: bytes) -> bool:
        """Note the usage if this is the usage event; return whether the client is to be spared it."""
        try:
            tail = _decode_tail(data_of(event))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if tail.choices != [] or tail.usage is None:
            return False
        self._usage = _read(tail.usage)
        return self._strip


def _last_boundary(data: bytes, start: int) -> int:
    """Return where the last complete event ends, 0 if none does, searching from `start`."""
    lf, crlf, cr = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start), data.rfind(b"\r\r", start)
    return max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0, cr + 2 if cr >= 0 else 0)

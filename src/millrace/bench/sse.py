"""An incremental parser of server-sent events (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import re

from msgspec import Struct

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseEvent(Struct, frozen=True):
    """One dispatched event; `name` is empty where the stream gave none."""

    data: bytes
    name: bytes = b""


class SseParser:
    """Turns pieces of a stream, split anywhere, into events. What has no blank line after it is no event."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._first_line = True
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Return the events that this piece completes."""
        if not piece:
            return []
        if self._after_cr and piece[:1] == b"\n":  # the second half of a CRLF
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        return [event for line in lines if (event := self._take(line))]

    def _take(self, line: bytes) -> SseEvent | None:
        if self._first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first_line = False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> SseEvent | None:
        event = SseEvent(b"\n".join(self._data), self._name) if self._data else None
        self._data, self._name = [], b""
        return event

"""HTTP/1.1 answers of engines, framed by hand: heads, chunks, lengths. Pure, and strict.

Source: RFC 9112 sections 2 to 7. A hand parser leaves the bytes of a streamed chunk untouched, which is
most of what a gateway does all day.
"""

from __future__ import annotations

import re

from msgspec import Struct

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT_BYTES = 64 * 1024
LINE_LIMIT_BYTES = 8 * 1024

_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\x20-\x7e\x80-\xff]*))?"
    rb"((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*)*)"
)
_ONE_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")

_NOTE, _PASS = 1, 2
_USES = {
    b"content-type": _NOTE | _PASS,
    b"content-encoding": _NOTE | _PASS,
    b"retry-after": _NOTE | _PASS,
    b"connection": _NOTE,
    b"content-length": _NOTE,
    b"transfer-encoding": _NOTE,
    b"keep-alive": 0,
    b"proxy-connection": 0,
    b"proxy-authenticate": 0,
    b"te": 0,
    b"trailer": 0,
    b"upgrade": 0,
    b"x-request-id": 0,
    b"x-millrace-replica": 0,
    b"x-millrace-model": 0,
}


class FramingError(ValueError):
    """An engine sent bytes that are not an HTTP/1.1 answer."""


class Head(Struct, frozen=True, kw_only=True):
    """An answer's head. `fields` are the header lines to pass on, each with its CRLF.

    `length` is None when the body is chunked or lasts until the connection closes. An `encoded` body
    cannot be looked into, so it is neither JSON nor an event stream here.
    """

    status: int
    reason: bytes
    fields: bytes
    length: int | None
    chunked: bool
    keep_alive: bool
    retry_after: bool = False
    encoded: bool = False
    is_event_stream: bool = False
    is_json: bool = False

    @property
    def wanders(self) -> bool:
        """Whether another engine may do better. A 500 may be the request's own doing and must not wander."""
        return self.status in (502, 503) or (self.status == 429 and self.retry_after)

    @property
    def bodiless(self) -> bool:
        """Whether the status forbids a body."""
        return self.status < 200 or self.status in (204, 304)


def parse_head(block: bytes) -> Head:
    """Parse a head, given without its blank line. Raises FramingError when it is malformed or ambiguous."""
    match = _HEAD.fullmatch(block)
    if match is None:
        raise FramingError(f"not an HTTP/1.1 head: {block[:60]!r}")
    version, status, reason, fields = match.groups()
    passed, noted = _sort_fields(fields.split(b"\r\n")[1:])
    chunked = b"transfer-encoding" in noted and _is_chunked(noted)
    length = noted.get(b"content-length")
    encoded = b"content-encoding" in noted and noted[b"content-encoding"].lower() != b"identity"
    content_type = b"" if encoded else noted.get(b"content-type", b"").lower()
    return Head(
        status=int(status),
        reason=reason or b"",
        fields=b"".join(passed),
        length=None if length is None else _length(length),
        chunked=chunked,
        keep_alive=version == b"1" and b"close" not in noted.get(b"connection", b"").lower(),
        retry_after=b"retry-after" in noted,
        encoded=encoded,
        is_event_stream=content_type.startswith(b"text/event-stream"),
        is_json=content_type.startswith(b"application/json"),
    )


def _sort_fields(lines: list[bytes]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Split header lines into those to pass on and those with a meaning here (some are both)."""
    passed: list[bytes] = []
    noted: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        use = _USES.get(name, _PASS)
        if use & _NOTE:
            noted[name] = noted[name] + b"," + value.strip() if name in noted else value.strip()
        if use & _PASS:
            passed.append(line + b"\r\n")
    return passed, noted


def _is_chunked(noted: dict[bytes, bytes]) -> bool:
    if b"content-length" in noted:
        raise FramingError("both content-length and transfer-encoding")
    if noted[b"transfer-encoding"].lower() != b"chunked":
        raise FramingError(f"unsupported transfer-encoding {noted[b'transfer-encoding']!r}")
    return True


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 15:
        raise FramingError(f"unusable content-length {value[:40]!r}")
    return int(value)


class SizedBody:
    """A body of a known length."""

    __slots__ = ("_left", "extra")
    broken = ""

    def __init__(self, length: int) -> None:
        self._left = length
        self.extra = b""

    @property
    def done(self) -> bool:
        """Whether the whole body was fed."""
        return self._left == 0

    def payload_start(self, data: bytes) -> int:
        """Never a single chunk."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the body; the rest goes to `extra`."""
        if len(data) > self._left:
            data, self.extra = data[: self._left], data[self._left :]
        self._left -= len(data)
        return data


class OpenBody:
    """A body that lasts until the engine closes the connection."""

    __slots__ = ()
    broken = ""
    done = False
    extra = b""

    def payload_start(self, data: bytes) -> int:
        """Never a single chunk."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """Everything belongs to the body."""
        return data


class ChunkedBody:
    """A chunked body, fed in arbitrary pieces; extensions and trailers are checked and left out.

    `broken` says what is wrong with the framing, once something is; nothing is read after that.
    """

    __slots__ = ("_left", "_line", "_part", "broken", "done", "extra")

    def __init__(self) -> None:
        self._part = "size"
        self._left = 0
        self._line = b""
        self.done = False
        self.extra = b""
        self.broken = ""

    def payload_start(self, data: bytes) -> int:
        """Return where the payload begins if `data` is exactly one chunk and nothing is pending, else 0.

        Such data may be written on as it is; its payload ends two bytes before its end.
        """
        if self._part != "size" or self._line:
            return 0
        match = _ONE_CHUNK.match(data)
        if match is None:
            return 0
        start, size = match.end(), int(match[1], 16)
        return start if size and start + size + 2 == len(data) and data.endswith(b"\r\n") else 0

    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`, as far as it is well framed. Bytes behind the end go to `extra`."""
        pieces: list[bytes] = []
        position = 0
        while position < len(data) and not self.done and not self.broken:
            if self._part == "data":
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = "data end"
            else:
                position = self._read_line(data, position)
        self.extra = data[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position) + 1
        self._line += data[position : end or len(data)]
        if len(self._line) > LINE_LIMIT_BYTES:
            self.broken = "a chunk header is too long"
        elif end:
            line, self._line = self._line, b""
            self._take_line(line)
        return end or len(data)

    def _take_line(self, line: bytes) -> None:
        if self._part == "size":
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                self.broken = f"malformed chunk header {line[:40]!r}"
                return
            self._left = int(match[1], 16)
            self._part = "data" if self._left else "trailer"
        elif self._part == "data end":
            if line != b"\r\n":
                self.broken = "a chunk is longer than its header says"
            self._part = "size"
        elif line == b"\r\n":
            self.done = True
        elif not line.endswith(b"\r\n"):
            self.broken = "malformed trailer"


Body = SizedBody | OpenBody | ChunkedBody


def body_of(head: Head) -> Body:
    """Return the framing of the body that follows this head."""
    if head.bodiless:
        return SizedBody(0)
    if head.chunked:
        return ChunkedBody()
    return OpenBody() if head.length is None else SizedBody(head.length)


def chunk(payload: bytes) -> bytes:
    """Frame a non-empty payload as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"

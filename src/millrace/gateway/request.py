"""Reads HTTP/1.1 requests from bytes, strictly; no IO.

llhttp (through httptools) refuses what request smuggling is made of; what it leaves to its users (limits, one
host, one transfer coding, the version) is refused here. A refused request is the last one read.
"""

from __future__ import annotations

from collections import deque

import httptools

from millrace.gateway.errors import Fault

HEAD_LIMIT_BYTES = 64 * 1024
READY_LIMIT = 16
READY_LIMIT_BYTES = 1 << 20

# Header fields with a meaning here; those that are True are passed on to engines as well.
_NOTED = {
    b"host": False,
    b"connection": False,
    b"content-length": False,
    b"transfer-encoding": False,
    b"content-type": False,
    b"accept-encoding": False,
    b"expect": False,
    b"keep-alive": False,
    b"proxy-authorization": False,
    b"proxy-connection": False,
    b"te": False,
    b"trailer": False,
    b"upgrade": False,
    b"http2-settings": False,
    b"x-request-id": False,
    b"x-session-id": True,
    b"x-session-token": True,
    b"x-session-affinity": True,
    b"x-claude-code-session-id": True,
    b"x-tenant-id": True,
    b"x-stainless-retry-count": True,
    b"x-llm-d-slo-ttft-ms": True,
    b"x-llm-d-slo-tpot-ms": True,
    b"x-slo-ttft-ms": True,
    b"x-slo-tpot-ms": True,
    b"x-priority": True,
    b"x-deadline-ms": True,
}
_UPGRADING = frozenset((b"connection", b"upgrade", b"http2-settings"))
_PLAIN_CONNECTION = frozenset((b"", b"keep-alive", b"close", b"upgrade", b"http2-settings", b"te"))


class Incoming:
    """A request as it came: `lines` are header lines to pass on, `noted` those with a meaning to the gateway.

    `bare` is an HTTP/1.0 client's, who cannot read chunks. With a `fault` it is not to be performed.
    """

    __slots__ = ("bare", "body", "fault", "keep_alive", "lines", "method", "noted", "target")

    def __init__(self, method: bytes, target: bytes, lines: list[bytes], noted: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.lines = lines
        self.noted = noted
        self.body = b""
        self.keep_alive = False
        self.bare = False
        self.fault: Fault | None = None


_TOO_MUCH_HEAD = Fault(431, f"the request's head is larger than {HEAD_LIMIT_BYTES} bytes")


class _RefusedError(Exception):
    """Stops the parser; the reason is with the reader."""


class RequestReader:
    """Turns a connection's bytes into requests: complete ones are in `ready`, in order.

    `ended`: nothing more will be read. `refused`: because of a fault, whatever the client still sends.
    `in_message`: a request has begun and is not complete.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.ready: deque[Incoming] = deque()
        self.ended = self.refused = False
        self.in_message = False
        self.awaits_continue = False
        self._messages = self._progress = 0
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = False
        self._fault: Fault | None = None
        self._clear()

    @property
    def pace(self) -> int:
        """A number that changes as long as a client keeps up: with every head and piece of a body."""
        return self._messages if self._in_head else -self._progress

    @property
    def is_full(self) -> bool:
        """Whether enough requests are ready that no more should be read for now."""
        return len(self.ready) >= READY_LIMIT or sum(len(r.body) for r in self.ready) > READY_LIMIT_BYTES

    def feed(self, data: bytes) -> None:
        """Read what came."""
        head_was_open, size = self._in_head, len(data)
        self._progress += size
        while data and not self.ended:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as error:
                self.refuse(self._fault or Fault(400, f"malformed HTTP request: {error}"))
        if head_was_open and self._in_head and not self.ended:
            self._unparsed_bytes += size  # a header line without an end is never shown to on_header
            if self._unparsed_bytes > HEAD_LIMIT_BYTES:
                self.refuse(_TOO_MUCH_HEAD)

    def refuse(self, fault: Fault) -> None:
        """Read nothing more; the fault is to be answered after what is ready."""
        if not self.ended:
            incoming = Incoming(b"", self._target, self._lines, self._noted)
            incoming.fault = fault
            self.ready.append(incoming)
            self.refused = True
        self.ended, self.in_message = True, False

    def on_message_begin(self) -> None:
        """Parser callback."""
        self._clear()
        self._messages += 1
        self.in_message = self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Parser callback; a target may come in pieces."""
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._stop(_TOO_MUCH_HEAD)
        if not self._in_head:
            return  # a trailer must not pass for a header
        name = name.lower()
        passed = _NOTED.get(name)
        if passed is not None:
            noted = self._noted
            noted[name] = noted[name] + b"," + value if name in noted else value
        if passed is not False:
            self._lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        """Parser callback: refuse what must not be read on."""
        self._in_head = False
        version = self._parser.get_http_version()
        self._bare = version == "1.0"
        fault = self._head_fault(version)
        if fault is not None:
            self._stop(fault)
        if b"expect" in self._noted:
            self.awaits_continue = True

    def on_body(self, body: bytes) -> None:
        """Parser callback."""
        self.awaits_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body_bytes:
            self._stop(self._too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Parser callback. What the parser takes for the end before an upgrade is none here."""
        if b"upgrade" in self._noted and self._parser.should_upgrade():
            return
        lines = self._passed_lines() if b"connection" in self._noted else self._lines
        incoming = Incoming(self._parser.get_method(), self._target, lines, self._noted)
        incoming.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        incoming.bare = self._bare
        incoming.keep_alive = self._parser.should_keep_alive() and not self._bare
        self.ready.append(incoming)
        self.in_message = self.awaits_continue = False
        self.ended = not incoming.keep_alive

    def _clear(self) -> None:
        self._target = b""
        self._lines: list[bytes] = []
        self._noted: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._bare = False
        self._head_bytes = self._unparsed_bytes = self._body_bytes = 0

    def _stop(self, fault: Fault) -> None:
        self._fault = fault
        raise _RefusedError

    def _head_fault(self, version: str) -> Fault | None:
        noted = self._noted
        if version not in ("1.0", "1.1"):
            return Fault(400, f"HTTP/{version} is not spoken here; use HTTP/1.1")
        if self._parser.get_method() == b"CONNECT":
            return Fault(405, "CONNECT is not offered: this is no proxy")
        if b"," in noted.get(b"host", b"," if version == "1.1" else b""):
            return Fault(400, "the request must name exactly one host")
        coding = noted.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            return Fault(400, "the only transfer-encoding understood is chunked, in HTTP/1.1")
        if b"expect" in noted and noted[b"expect"].lower() != b"100-continue":
            return Fault(417, "the only expectation met is 100-continue")
        if int(noted.get(b"content-length", 0)) > self._max_body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Fault:
        return Fault(413, f"the body is larger than {self._max_body_bytes} bytes")

    def _passed_lines(self) -> list[bytes]:
        """Leave out the lines that the connection header declares to be for this hop only."""
        named = {token.strip().lower() for token in self._noted[b"connection"].split(b",")}
        if named <= _PLAIN_CONNECTION:
            return self._lines
        return [line for line in self._lines if line.partition(b":")[0].lower() not in named]

    def _without_upgrade(self) -> bytes:
        """Return the head again, less the wish to upgrade, which nobody has to grant (RFC 9110, 7.8).

        Java's client sends one with every request; reading on as llhttp would lose the body behind it.
        """
        close = b"connection: close\r\n" if b"close" in self._noted.get(b"connection", b"").lower() else b""
        noted = [
            b"%b: %b\r\n" % (name, value)
            for name, value in self._noted.items()
            if name not in _UPGRADING and not _NOTED[name]
        ]
        method, target = self._parser.get_method(), self._target
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (
            method,
            target,
            close,
            b"".join(noted),
            b"".join(self._lines),
        )

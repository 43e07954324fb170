"""A client's request as it goes out to an engine."""

from __future__ import annotations

from msgspec import Struct

from millrace.gateway.upstream import Engine


class Wire(Struct, frozen=True):
    """Where a request goes, its header lines (each with its CRLF), and its body, byte for byte."""

    target: bytes
    query: bytes
    fields: bytes
    body: bytes

    def to(self, engine: Engine, wire_id: bytes) -> bytes:
        """Return the whole request for an engine."""
        line = engine.request_line(b"POST", self.target, self.query)
        return b"%b%bcontent-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            line,
            self.fields,
            wire_id,
            len(self.body),
            self.body,
        )

"""A client's request as it goes out to an engine."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from millrace.gateway.splice import with_model, with_token_ids, with_usage
from millrace.gateway.upstream import Engine


class Wire(Struct, frozen=True):
    """Where a request goes, its header lines (each with its CRLF), and its body, byte for byte."""

    target: bytes
    query: bytes
    fields: bytes
    body: bytes

    def asking(self, model: str) -> Wire:
        """Return the request for another model."""
        return replace(self, body=with_model(self.body, model))

    def counting(self, *, stream_options: bool) -> Wire | None:
        """Return the request for a stream that says its usage; None if that would take too long."""
        body = with_usage(self.body, stream_options=stream_options)
        return None if body is None else replace(self, body=body)

    def telling(self, *, said: bool) -> Wire | None:
        """Return the request for a stream that says its token ids; None if that would take too long."""
        body = with_token_ids(self.body, said=said)
        return None if body is None else replace(self, body=body)

    def to(self, engine: Engine, wire_id: bytes, field: bytes = b"") -> bytes:
        """Return the whole request for an engine; a field, if given, is the last of the body and counts."""
        body = self.body
        if field:
            end = body.rindex(b"}")
            body = b"%b,%b}" % (body[:end], field)
        line = engine.request_line(b"POST", self.target, self.query)
        return b"%b%bcontent-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            line,
            self.fields,
            wire_id,
            len(body),
            body,
        )

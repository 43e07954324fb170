"""Every error a client can meet, in the shape its SDK expects: whole answers, and events in broken streams.

Shapes and headers: the OpenAI and Anthropic API references and what their SDKs act on. SDKs retry 429 and 5xx
by themselves unless `x-should-retry` and `retry-after-ms` say better, and obey `retry-after` up to 120 s.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from millrace.core.event import Reason, Refuse
from millrace.core.prompt import Kind

LONGEST_RETRY_S = 120.0
RESTART_S = 1.0
"""When to come back to a gateway that shuts down: another one, or its successor, is likely to be there."""
RETRYABLE = frozenset((429, 502, 503, 504))

_OPENAI = {
    400: ("invalid_request_error", None),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    417: ("invalid_request_error", "expectation_failed"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    431: ("invalid_request_error", "headers_too_large"),
    500: ("api_error", "internal_error"),
    502: ("api_error", "upstream_error"),
    503: ("api_error", "service_unavailable"),
    504: ("timeout_error", "deadline_exceeded"),
}
_ANTHROPIC = {
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}

Dropped = Reason | Literal["rejected-shutting-down", "rejected-context-cancelled"]
"""Why a request was given up before an engine had it: the controller's reasons, and the gateway's own."""

_IN_LLMDS_WORDS: dict[Dropped, Dropped | None] = {
    "rejected-capacity": "rejected-saturated",
    "rejected-capacity-priority": "rejected-saturated",
    "rejected-capacity-tenant": "rejected-saturated",
    "rejected-deadline": "rejected-ttl-expired",
    "rejected-late": "rejected-ttl-expired",
    "rejected-other": None,
}
"""What llm-d's router says in its header where it tells fewer cases apart; None is nothing."""

encode = msgspec.json.encode


class Fault(Struct, frozen=True):
    """What went wrong, for one client. `code` replaces the status's usual one, and `dropped` both."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    dropped: Dropped | None = None


def refused(action: Refuse) -> Fault:
    """Return the fault that tells a client of the controller's refusal."""
    unknown = action.status == 404
    return Fault(
        action.status,
        action.why,
        "model" if unknown else None,
        "model_not_found" if unknown else None,
        action.retry_after_s,
        None if action.reason is UNSET else action.reason,
    )


def ending(why: str, *, sent: bool) -> Fault:
    """Return what a client hears of the gateway's end, whose request may have been sent to an engine."""
    return Fault(503, why, retry_after_s=RESTART_S, dropped=None if sent else "rejected-shutting-down")


def answer(
    fault: Fault, request_id: bytes, *, kind: Kind = "chat", close: bool = False, allow: str = ""
) -> bytes:
    """Return the complete HTTP answer for a fault."""
    status = 529 if kind == "messages" and fault.status == 503 else fault.status
    fields = [b"content-type: application/json\r\n"]
    if fault.status >= 429:
        fields.append(_retry_fields(fault))
    if fault.dropped and (word := _IN_LLMDS_WORDS.get(fault.dropped, fault.dropped)):
        fields.append(b"x-llm-d-request-dropped-reason: %b\r\n" % word.encode())
    if allow:
        fields.append(b"allow: %b\r\n" % allow.encode())
    if kind == "messages":
        fields.append(b"request-id: %b\r\n" % request_id)
    return whole(status, b"".join(fields), encode(_body(fault, kind, request_id)), request_id, close=close)


def whole(
    status: int, fields: bytes, body: bytes, request_id: bytes, *, close: bool, reason: bytes = b""
) -> bytes:
    """Return a complete HTTP answer; `fields` are header lines, each with its CRLF."""
    return b"HTTP/1.1 %d %b\r\n%bx-request-id: %b\r\n%b%b\r\n%b" % (
        status,
        reason or _reason(status),
        fields,
        request_id,
        b"" if status in (204, 304) else b"content-length: %d\r\n" % len(body),
        b"connection: close\r\n" if close else b"",
        body,
    )


def in_band(message: str, kind: Kind) -> bytes:
    """Return the event that tells a client inside its stream that the rest will not come."""
    if kind == "messages":
        error: dict[str, Any] = {"type": "api_error", "message": message}
        return b"event: error\ndata: %b\n\n" % encode({"type": "error", "error": error})
    error = {"message": message, "type": "api_error", "code": "upstream_error", "param": None}
    if kind == "responses":
        return b"event: error\ndata: %b\n\n" % encode(error | {"type": "error", "sequence_number": 0})
    return b"data: %b\n\n" % encode({"error": error})


def _body(fault: Fault, kind: Kind, request_id: bytes) -> dict[str, Any]:
    if kind == "messages":
        error = {"type": _ANTHROPIC.get(fault.status, "invalid_request_error"), "message": fault.message}
        return {"type": "error", "error": error, "request_id": request_id.decode()}
    type_, code = _OPENAI.get(fault.status, ("api_error", None))
    code = fault.dropped or fault.code or code
    return {"error": {"message": fault.message, "type": type_, "param": fault.param, "code": code}}


def _retry_fields(fault: Fault) -> bytes:
    fields = b"x-should-retry: %b\r\n" % (b"true" if fault.status in RETRYABLE else b"false")
    if fault.retry_after_s is None:
        return fields
    seconds = min(fault.retry_after_s, LONGEST_RETRY_S)
    return b"%bretry-after: %d\r\nretry-after-ms: %d\r\n" % (fields, ceil(seconds), round(seconds * 1000))


def _reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status != 529 else b"Overloaded"

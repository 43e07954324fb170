"""Errors in the shape each SDK expects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millrace.core.prompt import Kind
from millrace.gateway.errors import Fault, answer, in_band


def parsed(raw: bytes) -> tuple[int, dict[str, str], Any]:
    """Split an answer into status, header fields and decoded body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert int(fields["content-length"]) == len(body)
    return int(first.split(" ")[1]), fields, json.loads(body)


def test_openais_shape_names_the_field() -> None:
    status, fields, body = parsed(answer(Fault(400, "no", "max_tokens"), b"id"))
    assert status == 400
    assert fields["x-request-id"] == "id"
    assert body == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "max_tokens", "code": None}
    }


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 417, 429, 431, 500, 502, 503, 504, 418])
def test_every_status_has_a_type(status: int) -> None:
    assert parsed(answer(Fault(status, "no"), b"id"))[2]["error"]["type"]


@pytest.mark.parametrize(
    ("seconds", "after", "milliseconds"), [(0.25, "1", "250"), (7.0, "7", "7000"), (500.0, "120", "120000")]
)
def test_how_long_to_wait_is_said_in_whole_seconds_and_exactly(
    seconds: float, after: str, milliseconds: str
) -> None:
    fields = parsed(answer(Fault(503, "no", retry_after_s=seconds), b"id"))[1]
    assert (fields["retry-after"], fields["retry-after-ms"], fields["x-should-retry"]) == (
        after,
        milliseconds,
        "true",
    )


def test_what_is_the_clients_fault_should_not_be_tried_again() -> None:
    assert parsed(answer(Fault(500, "bug"), b"id"))[1]["x-should-retry"] == "false"
    assert "x-should-retry" not in parsed(answer(Fault(400, "no"), b"id"))[1]


def test_anthropics_shape_and_its_own_status_for_overload() -> None:
    status, fields, body = parsed(answer(Fault(503, "busy"), b"id", kind="messages"))
    assert status == 529
    assert fields["request-id"] == "id"
    error = {"type": "overloaded_error", "message": "busy"}
    assert body == {"type": "error", "error": error, "request_id": "id"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("chat", b""), ("text", b""), ("messages", b"event: error\n"), ("responses", b"event: error\n")],
)
def test_an_error_in_a_stream_is_one_event_of_its_dialect(kind: Kind, name: bytes) -> None:
    event = in_band("it broke", kind)
    assert event.startswith(name + b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n\n") == 1
    assert b"it broke" in event


def test_a_connection_about_to_close_says_so() -> None:
    assert parsed(answer(Fault(400, "no"), b"id", close=True))[1]["connection"] == "close"

"""Heads of answers: what is passed on, what is meant, what is refused."""

from __future__ import annotations

import pytest

from millrace.gateway.framing import ChunkedBody, FramingError, OpenBody, SizedBody, body_of, parse_head

HEAD = b"HTTP/1.1 200 OK\r\n"


def test_end_to_end_fields_pass_as_they_are_and_hop_by_hop_ones_do_not() -> None:
    block = (
        HEAD + b"X-A: 1\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nDATE:  now \r\nTE: x\r\nX-A: 2"
    )
    assert parse_head(block).fields == b"X-A: 1\r\nDATE:  now \r\nX-A: 2\r\n"


def test_an_engines_own_request_id_and_replica_give_way_to_ours() -> None:
    assert parse_head(HEAD + b"X-Request-Id: a\r\nx-millrace-replica: b").fields == b""


def test_the_meaning_of_fields_is_read() -> None:
    head = parse_head(HEAD + b"Content-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: Chunked")
    assert head.is_event_stream
    assert head.chunked
    assert head.keep_alive
    assert head.length is None
    json = parse_head(
        b"HTTP/1.0 429 \r\ncontent-type: application/json\r\ncontent-length: 7\r\nretry-after: 3"
    )
    assert (json.status, json.length, json.is_json, json.retry_after) == (429, 7, True, True)
    assert not json.keep_alive
    assert json.fields == b"content-type: application/json\r\nretry-after: 3\r\n"


def test_a_compressed_stream_is_not_looked_into() -> None:
    head = parse_head(HEAD + b"content-type: text/event-stream\r\ncontent-encoding: gzip")
    assert not head.is_event_stream
    assert b"content-encoding: gzip\r\n" in head.fields


def test_a_connection_that_will_close_is_not_kept() -> None:
    assert not parse_head(HEAD + b"connection: Keep-Alive, Close").keep_alive


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x00\xff",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nname : value",
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\na: 1\nb: 2",
        b"HTTP/1.1 200 OK\r\na: 1\rb: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1e3",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ],
)
def test_a_malformed_or_ambiguous_head_is_refused(block: bytes) -> None:
    with pytest.raises(FramingError):
        parse_head(block)


def test_the_body_is_framed_as_the_head_says() -> None:
    assert isinstance(body_of(parse_head(HEAD + b"transfer-encoding: chunked")), ChunkedBody)
    assert isinstance(body_of(parse_head(HEAD + b"content-length: 5")), SizedBody)
    assert isinstance(body_of(parse_head(HEAD.strip())), OpenBody)
    assert body_of(parse_head(b"HTTP/1.1 204 No Content")).done


@pytest.mark.parametrize(
    "framed",
    [
        b"zz\r\n",
        b"1\r\nab\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1;\n",
        b"1\na\r\n",
        b"0\r\nx: 1\n\r\n",
        b"1" * 9_000,
    ],
)
def test_malformed_chunks_are_refused(framed: bytes) -> None:
    body = ChunkedBody()
    assert body.feed(b"2\r\nok\r\n" + framed + b"\r\n\n").startswith(b"ok")
    assert body.broken
    assert not body.done

"""Requests read from bytes: what is understood, what is refused, and how much is read."""

from __future__ import annotations

import pytest

from millrace.gateway.request import HEAD_LIMIT_BYTES, READY_LIMIT, RequestReader

HOST = b"POST /p HTTP/1.1\r\nhost: h\r\n"


def read(*pieces: bytes, limit: int = 1000) -> RequestReader:
    """Feed pieces to a reader."""
    reader = RequestReader(limit)
    for piece in pieces:
        reader.feed(piece)
    return reader


def test_a_request_is_read_whole_however_it_is_cut() -> None:
    raw = HOST + b"X-A: 1\r\nX-Session-Id: s\r\ncontent-length: 3\r\n\r\nabc"
    for size in (1, 2, 7, len(raw)):
        (incoming,) = read(*(raw[i : i + size] for i in range(0, len(raw), size))).ready
        assert (incoming.method, incoming.target, incoming.body) == (b"POST", b"/p", b"abc")
        assert incoming.lines == [b"x-a: 1\r\n", b"x-session-id: s\r\n"]
        assert incoming.noted[b"x-session-id"] == b"s"
        assert incoming.keep_alive


def test_a_chunked_body_is_put_together_and_its_trailers_mean_nothing() -> None:
    raw = HOST + b"Transfer-Encoding: Chunked\r\n\r\n1;e=1\r\na\r\n2\r\nbc\r\n0\r\n"
    raw += b"x-tenant-id: evil\r\nhost: b\r\n\r\n"
    (incoming,) = read(raw).ready
    assert incoming.body == b"abc"
    assert b"x-tenant-id" not in incoming.noted
    assert incoming.lines == []


def test_pipelined_requests_are_ready_in_order() -> None:
    reader = read(b"".join(b"GET /%d HTTP/1.1\r\nhost: h\r\n\r\n" % number for number in range(READY_LIMIT)))
    assert [incoming.target for incoming in reader.ready] == [
        b"/%d" % number for number in range(READY_LIMIT)
    ]
    assert reader.is_full


def test_lines_for_this_hop_only_are_not_passed_on() -> None:
    raw = (
        HOST + b"connection: keep-alive, X-Hop\r\nx-hop: 1\r\nx-end: 2\r\nte: trailers\r\nupgrade: x\r\n\r\n"
    )
    (incoming,) = read(raw).ready
    assert incoming.lines == [b"x-end: 2\r\n"]


def test_a_client_that_says_it_is_done_is_believed() -> None:
    reader = read(HOST + b"connection: close\r\n\r\n" + HOST + b"\r\n")
    assert len(reader.ready) == 1
    assert not reader.ready[0].keep_alive
    assert reader.ended
    assert not reader.refused


def test_an_old_client_gets_one_answer_without_chunks() -> None:
    (incoming,) = read(b"POST /p HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").ready
    assert incoming.bare
    assert not incoming.keep_alive


@pytest.mark.parametrize("behind", [b"", b"GET /next HTTP/1.1\r\nhost: h\r\n\r\n"])
def test_a_wish_to_upgrade_is_passed_over_and_the_body_kept(behind: bytes) -> None:
    raw = HOST + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
    raw += b"x-a: 1\r\ncontent-length: 3\r\n\r\nabc" + behind
    for size in (1, 9, len(raw)):
        reader = read(*(raw[i : i + size] for i in range(0, len(raw), size)))
        assert reader.ready[0].body == b"abc"
        assert reader.ready[0].lines == [b"x-a: 1\r\n"]
        assert [incoming.target for incoming in reader.ready][1:] == ([b"/next"] if behind else [])


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/2.0\r\nhost: h\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HOST + b"host: b\r\n\r\n", 400),
        (HOST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"content-length: 1\r\ncontent-length: 1\r\n\r\na", 400),
        (HOST + b"content-length: 1, 1\r\n\r\na", 400),
        (HOST + b"content-length: +1\r\n\r\na", 400),
        (HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding: identity\r\n\r\n", 400),
        (HOST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"x: a\r\n folded\r\n\r\n", 400),
        (HOST + b"x: a\nb: c\r\n\r\n", 400),
        (HOST + b"x: a\x00b\r\n\r\n", 400),
        (HOST + b"transfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (HOST + b"transfer-encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n", 405),
        (HOST + b"expect: a-miracle\r\n\r\n", 417),
        (HOST + b"content-length: 1001\r\n\r\n", 413),
        (HOST + b"transfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
        (HOST + b"x: " + b"x" * HEAD_LIMIT_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_must_not_be_guessed_at_is_refused_and_nothing_behind_it_is_read(
    raw: bytes, status: int
) -> None:
    reader = read(raw, HOST + b"\r\n")
    (incoming,) = reader.ready
    assert incoming.fault is not None
    assert incoming.fault.status == status
    assert reader.refused
    assert reader.ended


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    reader = read(HOST + b"x: ", *[b"x" * 10_000] * 20)
    assert [incoming.fault.status for incoming in reader.ready if incoming.fault] == [431]


def test_requests_before_a_refused_one_are_still_answered() -> None:
    first, second = read(HOST + b"\r\n" + b"nonsense\r\n\r\n").ready
    assert first.fault is None
    assert second.fault is not None


def test_a_body_that_waits_for_a_word_is_noticed_until_it_comes() -> None:
    reader = read(HOST + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\n")
    assert reader.awaits_continue
    reader.feed(b"a")
    assert not reader.awaits_continue
    assert len(reader.ready) == 1


def test_the_pace_of_a_client_shows_its_progress() -> None:
    reader = read(HOST)
    in_head = reader.pace
    reader.feed(b"x: 1\r\n")
    assert reader.pace == in_head
    reader.feed(b"content-length: 9\r\n\r\n")
    in_body = reader.pace
    assert in_body != in_head
    reader.feed(b"a")
    assert reader.pace != in_body

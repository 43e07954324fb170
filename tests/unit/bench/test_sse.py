"""The event parser against the examples of the standard, and against every way of cutting a stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.bench.sse import SseEvent, SseParser


def parse(*pieces: bytes) -> list[SseEvent]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_of_three_ways(end: bytes) -> None:
    stream = end.join([b"event: error", b"data: one", b"", b"data: two", b"", b""])
    assert parse(stream) == [SseEvent(b"one", b"error"), SseEvent(b"two")]


def test_comments_and_unknown_fields_are_skipped() -> None:
    assert parse(b": keep-alive\n\nid: 7\nretry: 10\nwhatever\ndata: x\n\n") == [SseEvent(b"x")]


def test_data_lines_are_joined_and_only_one_space_is_dropped() -> None:
    assert parse(b"data:YHOO\ndata:  +2\ndata\ndata: 10\n\n") == [SseEvent(b"YHOO\n +2\n\n10")]


def test_an_event_without_data_is_dropped_with_its_name() -> None:
    assert parse(b"event: ping\n\ndata: x\n\n") == [SseEvent(b"x")]


def test_empty_data_is_an_event() -> None:
    assert parse(b"data\n\ndata:\n\n") == [SseEvent(b""), SseEvent(b"")]


def test_an_event_that_is_cut_off_is_no_event() -> None:
    assert parse(b"data: half", b"\ndata: more\n") == []


def test_a_byte_order_mark_may_lead_the_stream() -> None:
    assert parse(b"\xef", b"\xbb\xbfdata: x\n\n") == [SseEvent(b"x")]


def test_a_line_end_split_between_pieces_is_one_line_end() -> None:
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [SseEvent(b"a\nb")]


def test_an_event_is_there_as_soon_as_its_last_byte_is() -> None:
    parser = SseParser()
    assert parser.feed(b"data: x\r\r") == [SseEvent(b"x")]
    assert parser.feed(b"\n") == []


TEXT = st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n"))
EVENTS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), max_size=5)


@given(EVENTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 300)))
def test_what_was_written_is_read_however_the_stream_is_cut(
    events: list[tuple[bytes, list[bytes]]], end: bytes, cuts: list[int]
) -> None:
    lines = [line for name, data in events for line in _lines(name, data)]
    stream = b"".join(line + end for line in lines)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert parse(*pieces) == [SseEvent(b"\n".join(data), name) for name, data in events]


def _lines(name: bytes, data: list[bytes]) -> list[bytes]:
    return [b": comment", b"event: " + name, *(b"data: " + one for one in data), b""]


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_give_the_same_events_in_one_piece_or_many(pieces: list[bytes]) -> None:
    assert parse(*pieces) == parse(b"".join(pieces))

"""However bytes are cut into reads: payloads arrive whole, ends are found exactly, splices stay valid."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from millrace.gateway.framing import ChunkedBody, FramingError, SizedBody, chunk, parse_head
from millrace.gateway.splice import with_usage
from millrace.gateway.usage import EventSieve, Usage

payloads = st.lists(st.binary(min_size=1, max_size=60), max_size=8)
extensions = st.sampled_from((b"", b";ext=1", b" ;a;b=c"))
trailers = st.sampled_from((b"", b"x-trailer: 1\r\n", b"a: b\r\nc: d\r\n"))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes; the last piece is what is left."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@given(payloads, extensions, trailers, st.lists(st.integers(1, 40), max_size=30), st.binary(max_size=5))
def test_a_chunked_body_gives_its_payload_and_its_end_however_it_is_cut(
    parts: list[bytes], extension: bytes, trailer: bytes, sizes: list[int], behind: bytes
) -> None:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailer
    body, got = ChunkedBody(), b""
    for piece in cut(framed + b"\r\n" + behind, sizes):
        if not body.done:
            got += body.feed(piece)
    assert body.done
    assert not body.broken
    assert got == b"".join(parts)
    assert behind.startswith(body.extra)


@given(payloads, st.integers(0, 200))
def test_a_body_that_stops_early_is_never_taken_for_complete(parts: list[bytes], missing: int) -> None:
    framed = b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    body = ChunkedBody()
    body.feed(framed[: len(framed) - 1 - missing % len(framed)])
    assert not body.done


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=20))
def test_only_exactly_one_chunk_at_rest_passes_as_one(payload: bytes, noise: bytes) -> None:
    body, framed = ChunkedBody(), chunk(payload)
    start = body.payload_start(framed)
    assert framed[start:-2] == payload
    if noise:
        assert not body.payload_start(framed + noise)
    body.feed(framed[:1])
    assert not body.payload_start(framed)


@given(st.binary(max_size=60))
@example(b"+1\r\na\r\n")
@example(b"0x1\r\na\r\n")
@example(b"1_0\r\n" + b"a" * 16 + b"\r\n")
@example(b"1\na\r\n")
@example(b"-1\r\n\r\n")
def test_garbage_is_refused_or_waited_out_but_never_passed_on_as_more_than_was_framed(garbage: bytes) -> None:
    body = ChunkedBody()
    start = body.payload_start(garbage)
    payload = body.feed(garbage)
    assert len(payload) <= len(garbage)
    assert not start or payload == garbage[start:-2]
    assert not (start and body.broken)


@given(st.binary(max_size=50), st.binary(max_size=20), st.lists(st.integers(1, 20), max_size=10))
def test_a_sized_body_ends_where_it_says(payload: bytes, behind: bytes, sizes: list[int]) -> None:
    body, got = SizedBody(len(payload)), b""
    for piece in cut(payload + behind, sizes):
        if not body.done:
            got += body.feed(piece)
    assert got == payload


@given(st.binary(max_size=200))
def test_a_head_is_parsed_or_refused_and_never_smuggles_a_line(block: bytes) -> None:
    try:
        head = parse_head(b"HTTP/1.1 200 OK\r\n" + block)
    except FramingError:
        return
    assert b"\n" not in head.fields.replace(b"\r\n", b"")
    assert b"\r" not in head.fields.replace(b"\r\n", b"")
    assert b"\r\n\r\n" not in head.fields


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from(['"{}[]\\', '\\"', "}{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
options = st.none() | st.dictionaries(
    st.sampled_from(("include_usage", "continuous_usage_stats", "x", 'a"b')),
    st.booleans() | st.none(),
    max_size=3,
)
names = st.sampled_from(("messages", "a{b", 'c"d', "stream_options_", "é", "\\")) | st.text(max_size=6)
spaces = st.sampled_from(("", " ", "\n  ", "\t"))


@st.composite
def bodies(draw: st.DrawFn, *, with_options: bool) -> tuple[bytes, dict[str, Any]]:
    """A JSON body in some layout, with or without `stream_options` somewhere at its top level."""
    value = draw(st.dictionaries(names, json_values, max_size=4)) | {"model": "m"}
    value.pop("stream_options", None)
    items = [*value.items()]
    if with_options:
        items.insert(draw(st.integers(0, len(items))), ("stream_options", draw(options)))
    space, ascii_only = draw(spaces), draw(st.booleans())
    text = json.dumps(
        dict(items),
        ensure_ascii=ascii_only,
        indent=draw(st.none() | st.integers(0, 2)),
        separators=("," + space, space + ":" + space),
    )
    return (space + text + space).encode(), dict(items)


@given(bodies(with_options=False))
def test_usage_is_asked_for_without_changing_anything_else(body: tuple[bytes, dict[str, Any]]) -> None:
    spliced = with_usage(body[0], stream_options=False)
    assert spliced is not None
    assert json.loads(spliced) == body[1] | {"stream_options": {"include_usage": True}}
    assert spliced.replace(b'"stream_options":{"include_usage":true},', b"", 1) == body[0]


@given(bodies(with_options=True))
def test_usage_is_asked_for_within_options_that_are_there(body: tuple[bytes, dict[str, Any]]) -> None:
    spliced = with_usage(body[0], stream_options=True)
    assert spliced is not None
    wanted = (body[1]["stream_options"] or {}) | {"include_usage": True}
    assert json.loads(spliced) == body[1] | {"stream_options": wanted}


boundaries = st.sampled_from((b"\n\n", b"\r\n\r\n"))
texts = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One server-sent event that belongs to the answer, in some layout."""
    end = draw(boundaries)
    text = draw(texts)
    data: dict[str, Any] = {"choices": [{"delta": {"content": text}}]}
    data |= draw(st.sampled_from(({}, {"usage": None}, {"usage": USAGE})))
    shape = draw(st.sampled_from(("json", "comment", "empty choices", "done", "two lines")))
    if shape == "comment":
        return b": keep-alive" + end
    if shape == "done":
        return b"data: [DONE]" + end
    if shape == "empty choices":
        data = {"choices": [], "prompt_filter_results": [text]}
    name = b"event: x" + end[: len(end) // 2] if shape == "two lines" else b""
    return name + b"data: " + json.dumps(data).encode() + end


@given(
    st.lists(events(), max_size=6), st.lists(events(), max_size=3), st.lists(st.integers(1, 50), max_size=30)
)
def test_exactly_the_usage_event_is_taken_out_of_a_stream(
    before: list[bytes], after: list[bytes], sizes: list[int]
) -> None:
    unasked = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
    sieve = EventSieve(strip=True)
    pieces = [sieve.feed(piece) for piece in cut(b"".join([*before, unasked, *after]), sizes)]
    assert b"".join(pieces) + sieve.end() == b"".join([*before, *after])
    assert sieve.usage() == Usage(5, 7, 2)


@given(st.lists(events(), max_size=6), st.binary(max_size=20), st.lists(st.integers(1, 50), max_size=30))
def test_without_stripping_every_byte_passes_and_always_in_whole_events(
    stream: list[bytes], rest: bytes, sizes: list[int]
) -> None:
    sieve, whole = EventSieve(strip=False), b""
    for piece in cut(b"".join(stream), sizes):
        whole += sieve.feed(piece)
        assert not whole or whole.endswith((b"\n\n", b"\n\r\n", b"\r\r"))
    assert whole + sieve.feed(rest) + sieve.end() == b"".join(stream) + rest

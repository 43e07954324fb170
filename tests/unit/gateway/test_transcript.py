"""Token ids are noted as they pass, and only clients who asked for them see them."""

from __future__ import annotations

import pytest

from millrace.gateway.framing import chunk
from millrace.gateway.transcript import Opening, Transcript

FIRST = (
    b'data: {"id":"x","created":7,"model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}],'
    b'"prompt_token_ids":[5,6]}\n\n'
)


def event(ids: bytes, text: bytes = b"t") -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"token_ids":[%b]}]}\n\n' % (text, ids)


def begun(*, told: bool = False, wary: bool = False) -> Transcript:
    transcript = Transcript(told=told, wary=wary)
    transcript.take(FIRST)
    return transcript


def test_ids_are_noted_and_left_out() -> None:
    transcript = begun()
    assert transcript.take(event(b"1")) == event(b"")[:-20] + b"}]}\n\n"
    transcript.take(event(b"22,333") + event(b"4"))
    transcript.take(event(b""))
    assert (transcript.prompt, transcript.tokens) == ([5, 6], [1, 22, 333, 4])
    assert transcript.opening == Opening("x", 7, "m")
    assert transcript.whole
    assert transcript.size_bytes > 0


def framed(events: bytes) -> tuple[bytes, int]:
    """An HTTP chunk, and where its payload begins."""
    whole = chunk(events)
    return whole, whole.index(b"\r\n") + 2


@pytest.mark.parametrize("told", [False, True])
def test_a_chunk_of_one_event_is_cut_as_it_would_be_taken(told: bool) -> None:
    transcript, other = begun(told=told), begun(told=told)
    for ids in (b"1", b"22,333", b""):
        taken = chunk(other.take(event(ids, b'x ] \\",\\"token_ids\\":[')))
        data, start = framed(event(ids, b'x ] \\",\\"token_ids\\":['))
        assert transcript.cut(data, start) == taken
    assert (transcript.tokens, transcript.prompt) == (other.tokens, other.prompt) == ([1, 22, 333], [5, 6])


@pytest.mark.parametrize(
    "events",
    [
        event(b"1") + event(b"2"),
        event(b"1") + b"data: [DONE]\n\n",
        event(b"1", b"data: x"),
        event(b"1")[:-1],
        event(b"1", b'","reasoning":"'),
        b": comment\n\n",
        b'data: {"choices":[{"delta":{},"token_ids":[1\n\n',
        b'data: {"choices":[]}\n\n',
    ],
)
def test_any_other_chunk_is_left_to_be_taken(events: bytes) -> None:
    transcript = begun(wary=True)
    assert transcript.cut(*framed(events)) is None
    assert transcript.tokens == []


def test_a_stream_whose_ids_are_unknown_is_not_cut() -> None:
    assert Transcript(told=False, wary=False).cut(*framed(event(b"1"))) is None
    transcript = begun()
    transcript.take(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    assert transcript.lost
    assert transcript.cut(*framed(event(b"1"))) is None


def test_who_asked_for_ids_sees_them() -> None:
    transcript = Transcript(told=True, wary=False)
    assert transcript.take(FIRST) == FIRST
    assert transcript.take(event(b"1") + event(b"2")) == event(b"1") + event(b"2")
    assert transcript.tokens == [1, 2]


def test_text_that_looks_like_ids_or_events_is_text() -> None:
    transcript = begun()
    said = rb"data: ,\"token_ids\":[9]"
    assert said in transcript.take(event(b"1", said))
    assert transcript.tokens == [1]


def test_events_that_bring_no_tokens_need_no_ids() -> None:
    transcript = begun()
    for other in (b": a comment\n\n", b'data: {"choices":[],"usage":{}}\n\n', b"data: [DONE]\n\n"):
        assert transcript.take(other) == other
    assert transcript.whole


@pytest.mark.parametrize(
    "other",
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"text"}}]}\n\n',
        b'data: {"error":{"message":"broken"}}\n\n',
    ],
)
def test_an_event_without_ids_loses_the_transcript(other: bytes) -> None:
    transcript = begun()
    assert transcript.take(other) == other
    assert not transcript.whole
    assert b"token_ids" not in transcript.take(event(b"1"))


@pytest.mark.parametrize("first", [b"data: {}\n\n", b"data: {\n\n", event(b"1"), b"data: \xff\n\n"])
def test_a_stream_that_does_not_say_its_prompt_is_not_whole(first: bytes) -> None:
    transcript = Transcript(told=False, wary=False)
    transcript.take(first)
    assert not transcript.whole


def test_reasoning_loses_the_transcript_of_an_engine_that_parts_it_from_the_text() -> None:
    thought = b'data: {"choices":[{"delta":{"reasoning":"hm"},"token_ids":[1]}]}\n\n'
    for wary in (False, True):
        transcript = begun(wary=wary)
        transcript.take(thought)
        assert transcript.whole is not wary


def test_what_was_added_otherwise_counts() -> None:
    transcript = begun()
    transcript.take(event(b"1"))
    transcript.add([2, 3])
    assert transcript.tokens == [1, 2, 3]

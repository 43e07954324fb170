"""Token counts from answers, and streams held to whole events."""

from __future__ import annotations

import json

import pytest

from millrace.gateway.framing import chunk
from millrace.gateway.usage import EVENT_LIMIT_BYTES, NO_USAGE, EventSieve, Usage, last_usage, usage_of

TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4, None)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, None, 2)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3, None, None)),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 1}, Usage(3, 4, 1)),
        ({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}, Usage(3, None, 2)),
        ({"prompt_tokens": "3"}, NO_USAGE),
        ({"prompt_tokens": -3}, NO_USAGE),
        (None, NO_USAGE),
    ],
)
def test_usage_is_read_in_every_dialect_and_unknown_when_unreadable(usage: object, read: Usage) -> None:
    assert usage_of(json.dumps({"usage": usage, "choices": [1]}).encode()) == read
    assert last_usage(json.dumps({"usage": usage}).encode()) == read


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"usage":' + b"[" * 10_000])
def test_an_unreadable_answer_has_no_usage(body: bytes) -> None:
    assert usage_of(body) == NO_USAGE
    assert last_usage(body) == NO_USAGE


def test_the_last_of_several_usages_counts() -> None:
    tail = b'cut "usage":{"prompt_tokens":1}} data: {"response":{"usage":{"input_tokens":2}}} "usage":{"bro'
    assert last_usage(tail) == Usage(2, None, None)


def test_a_chunk_of_whole_events_passes_untouched_and_others_do_not() -> None:
    sieve = EventSieve(strip=True)
    assert sieve.passes(chunk(TOKEN))
    assert not sieve.passes(chunk(TOKEN[:-1]))
    assert not sieve.passes(chunk(USAGE))
    sieve.feed(b"data: half")
    assert not sieve.passes(chunk(TOKEN))


def test_the_usage_event_reaches_only_those_who_asked() -> None:
    asked, unasked = EventSieve(strip=False), EventSieve(strip=True)
    assert asked.feed(TOKEN + USAGE + DONE) == TOKEN + USAGE + DONE
    assert unasked.feed(TOKEN + USAGE + DONE) == TOKEN + DONE
    assert asked.usage() == unasked.usage() == Usage(3, 4, None)


def test_usage_on_a_token_counts_without_being_taken_out() -> None:
    token = TOKEN.replace(b"null", b'{"prompt_tokens":9}')
    sieve = EventSieve(strip=True)
    assert sieve.feed(token + DONE) == token + DONE
    assert sieve.usage() == Usage(9, None, None)


def test_a_usage_event_at_the_end_without_blank_line_is_still_taken_out() -> None:
    sieve = EventSieve(strip=True)
    assert sieve.feed(TOKEN + USAGE.rstrip()) == TOKEN
    assert sieve.end() == b""
    assert sieve.usage() == Usage(3, 4, None)


def test_an_event_beyond_the_limit_is_passed_on_in_parts() -> None:
    sieve, big = EventSieve(strip=True), b"data: " + b"x" * EVENT_LIMIT_BYTES
    assert sieve.feed(big) == big
    assert sieve.feed(b"more\n\n") == b"more\n\n"


def test_a_stream_is_complete_when_its_dialect_says_so() -> None:
    sieve = EventSieve(strip=True)
    sieve.feed(TOKEN)
    assert not sieve.complete("chat")
    sieve.feed(DONE)
    assert sieve.complete("text")
    assert not sieve.complete("messages")
    sieve.feed(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert sieve.complete("messages")
    sieve.feed(b"event: response.failed\ndata: {}\n\n")
    assert sieve.complete("responses")

"""What a client makes of a stream of events, good and bad."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millrace.bench.answer import Answer
from millrace.bench.sse import SseEvent
from millrace.core.outcome import Outcome

USAGE = {"prompt_tokens": 100, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}


def event(name: bytes = b"", **fields: Any) -> SseEvent:
    return SseEvent(json.dumps(fields).encode(), name)


def token(text: str = "x") -> SseEvent:
    return event(choices=[{"text": text, "index": 0}], usage=None)


DONE = SseEvent(b"[DONE]")


def told(*events: SseEvent, answer: Answer | None = None) -> Outcome:
    """The outcome of events that come one second apart, from second 11 on."""
    answer = answer or Answer()
    for second, one in enumerate(events, 11):
        answer.take(one, float(second))
    return answer.outcome("q", scheduled_s=10.0, now_s=99.0, prompt_tokens=90)


def test_a_whole_answer_has_its_moments_and_the_endpoints_own_counts() -> None:
    answer = Answer("engine-1")
    outcome = told(token(), token(), token(), event(choices=[], usage=USAGE), DONE, answer=answer)
    assert outcome == Outcome(
        id="q",
        scheduled_s=10.0,
        status="completed",
        prompt_tokens=100,
        output_tokens=3,
        cached_tokens=64,
        replica="engine-1",
        first_token_s=11.0,
        finished_s=15.0,
    )
    assert answer.gaps_s == [1.0, 1.0]


def test_without_usage_chunks_are_counted() -> None:
    outcome = told(token(), token(), event(choices=[{"text": "", "finish_reason": "length"}]), DONE)
    assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (90, 3, 0)


def test_a_token_whose_text_waits_for_more_bytes_is_a_first_token() -> None:
    assert told(token(""), token("é"), DONE).first_token_s == 11.0


def test_a_chat_chunk_that_only_names_the_role_is_no_token() -> None:
    role = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
    word = event(choices=[{"delta": {"content": "hi"}}])
    assert told(role, word, DONE).first_token_s == 12.0


def test_a_stream_that_just_stops_has_failed() -> None:
    outcome = told(token(), token())
    assert (outcome.status, outcome.output_tokens, outcome.finished_s) == ("failed", 2, 99.0)
    assert outcome.error == "cut: the stream ended without [DONE]"


@pytest.mark.parametrize(
    "bad",
    [
        event(error={"message": "engine died", "type": "api_error"}),
        event(error="engine died"),
        event(b"error", message="engine died"),
        SseEvent(b"engine died", b"error"),
    ],
)
def test_an_error_in_the_stream_is_a_failure_in_its_own_words(bad: SseEvent) -> None:
    outcome = told(token(), bad, token(), DONE)
    assert outcome.status == "failed"
    assert outcome.error == "in-band: engine died"
    assert outcome.output_tokens == 1


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"choices": 3}', b'{"choices": [{"text": "\xff"}]}'])
def test_an_event_that_is_no_chunk_is_a_failure(data: bytes) -> None:
    outcome = told(SseEvent(data), DONE)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.startswith("malformed: ")


def test_what_breaks_after_the_end_does_not_undo_the_answer() -> None:
    answer = Answer()
    answer.take(DONE, 11.0)
    answer.fail("connection: reset")
    assert told(event(error="late"), answer=answer).status == "completed"


@pytest.mark.parametrize(
    ("http_status", "status"), [(429, "refused"), (503, "refused"), (400, "failed"), (500, "failed")]
)
def test_http_errors_are_refusals_or_failures(http_status: int, status: str) -> None:
    answer = Answer()
    answer.answer_http(http_status, b'{"error": {"message": "try\\n later"}}')
    outcome = told(answer=answer)
    assert outcome.status == status
    assert outcome.error == f"http {http_status}: try later"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Bad Gateway", "Bad Gateway"),
        (b"", "(no message)"),
        (b"\xff", "\ufffd"),
        (b'{"detail": 1}', "{'detail': 1}"),
    ],
)
def test_an_error_body_of_any_shape_is_quoted(body: bytes, message: str) -> None:
    answer = Answer()
    answer.answer_http(500, body)
    assert answer.error == f"http 500: {message}"

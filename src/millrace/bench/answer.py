"""One streamed answer as its client sees it, event by event: no IO, and no clock but the caller's."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from millrace.bench.sse import SseEvent
from millrace.core.outcome import Outcome, Status

_REFUSALS = (429, 503)
_MESSAGE_CHARS = 200


class _Details(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Choice(Struct):
    text: str | None = None
    delta: dict[str, Any] | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Answer:
    """What a stream has said so far. Moments are on the run's clock.

    It is complete only if `[DONE]` came and no error before it: a stream that just stops is a failure.
    """

    def __init__(self, replica: str | None = None) -> None:
        self.replica = replica
        self.first_token_s: float | None = None
        self.gaps_s: list[float] = []
        self.done_s: float | None = None
        self.status: Status = "completed"
        self.error: str | None = None
        self._chunks = 0
        self._last_token_s = 0.0
        self._usage = _Usage()

    def take(self, event: SseEvent, now_s: float) -> None:
        """Note one event. What comes after the end or after an error is not looked at."""
        if self._over:
            return
        if event.data == b"[DONE]":
            self.done_s = now_s
            return
        if event.name == b"error":
            self.fail(f"in-band: {_message(event.data)}")
            return
        try:
            chunk = _decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fail(f"malformed: {error}")
            return
        if chunk.error:
            self.fail(f"in-band: {_message(event.data)}")
            return
        self._usage = chunk.usage or self._usage
        if any(map(_holds_token, chunk.choices or ())):
            self._note_token(now_s)

    def answer_http(self, http_status: int, body: bytes) -> None:
        """Note an answer that is no stream: turned away (429, 503) or wrong (anything else)."""
        self.status = "refused" if http_status in _REFUSALS else "failed"
        self.error = f"http {http_status}: {_message(body)}"

    def fail(self, why: str) -> None:
        """Note that the answer broke, unless it is over; `why` begins with the kind of error and a colon."""
        if not self._over:
            self.status = "failed"
            self.error = why

    def outcome(self, id: str, *, scheduled_s: float, now_s: float, prompt_tokens: int) -> Outcome:
        """Return what became of the request if nothing comes after `now_s`.

        Token counts are the endpoint's own where it gave them, else as sent and as many as chunks came.
        """
        self.fail("cut: the stream ended without [DONE]")
        usage = self._usage
        details = usage.prompt_tokens_details
        return Outcome(
            id=id,
            scheduled_s=scheduled_s,
            status=self.status,
            prompt_tokens=_first(usage.prompt_tokens, prompt_tokens),
            output_tokens=_first(usage.completion_tokens, self._chunks),
            cached_tokens=_first(details.cached_tokens if details else None, 0),
            replica=self.replica,
            first_token_s=self.first_token_s,
            finished_s=now_s if self.done_s is None else self.done_s,
            error=self.error,
        )

    @property
    def _over(self) -> bool:
        return self.done_s is not None or self.error is not None

    def _note_token(self, now_s: float) -> None:
        if self.first_token_s is None:
            self.first_token_s = now_s
        else:
            self.gaps_s.append(now_s - self._last_token_s)
        self._last_token_s = now_s
        self._chunks += 1


def _holds_token(choice: _Choice) -> bool:
    """A completion chunk always stands for a token, even one whose text waits for the next bytes of its
    character; a chat chunk does unless it only names the role."""
    if choice.delta is None:
        return choice.text is not None
    return any(value for name, value in choice.delta.items() if name != "role")


def _message(body: bytes) -> str:
    """Return what an error body says, whatever its shape, on one short line."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = body.decode(errors="replace")
    while isinstance(found, dict):
        found = found.get("error") or found.get("message") or str(found)
    return " ".join(str(found).split())[:_MESSAGE_CHARS] or "(no message)"


def _first(said: int | None, otherwise: int) -> int:
    return otherwise if said is None else said

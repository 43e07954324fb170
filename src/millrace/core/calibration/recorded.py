"""Samples from the events of a fleet: requests that had a replica to themselves tell what steps take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from millrace.core.calibration.timings import Sample, decode_steps, prefill_steps
from millrace.core.event import Action, Cancelled, Dispatch, Event, Failed, Finished, Started

# What a batch saves cannot be seen in requests that were alone: a decode is priced by its step.
COEFFICIENTS = ("base_s", "per_token_s", "per_context_s", "per_prefill_s", "per_attended_s")
_HOLD_OUT_EVERY = 5
_STREAMED_GAP_S = 20e-6  # tokens that come faster were not streamed, but sent all at once


class Recorded(Struct, frozen=True, kw_only=True):
    """What a log gives: its samples, of `alone` requests out of `finished`, with `lengths` of prompts.

    A request is `alone` if no other was on its replica from its dispatch to its end, and if the engine
    told its tokens and streamed them.
    """

    samples: list[Sample]
    finished: int
    alone: int
    lengths: int


class _Attempt(Struct):
    """A request on a replica."""

    replica: str
    sent_s: float
    alone: bool
    started_s: float | None = None


def recorded(
    entries: Iterable[tuple[Event, Sequence[Action]]], *, step_tokens: int, replica: str | None = None
) -> Recorded:
    """Return what the entries of an event log say of one replica's steps, or of all replicas as of one.

    Every fifth request is held out. `step_tokens` is the most tokens of a step.
    """
    log = _Log()
    for event, actions in entries:
        log.take(event)
        for action in actions:
            if isinstance(action, Dispatch):
                log.send(action, event.now_s)
    ended = [one for one in log.ended if replica in (None, one[0].replica)]
    alone = [(attempt, end) for attempt, end in ended if _tells(attempt, end)]
    samples = [
        sample
        for i, (attempt, end) in enumerate(alone, 1)
        for sample in _samples(attempt, end, step_tokens, held_out=not i % _HOLD_OUT_EVERY)
    ]
    lengths = {end.prompt_tokens for _, end in alone}
    return Recorded(samples=samples, finished=len(ended), alone=len(alone), lengths=len(lengths))


class _Log:
    """Who is where, and who was alone until the end."""

    def __init__(self) -> None:
        self.ended: list[tuple[_Attempt, Finished]] = []
        self._attempts: dict[str, _Attempt] = {}

    def send(self, action: Dispatch, now_s: float) -> None:
        others = [one for one in self._attempts.values() if one.replica == action.replica]
        for one in others:
            one.alone = False
        self._attempts[action.request_id] = _Attempt(action.replica, now_s, not others)

    def take(self, event: Event) -> None:
        if isinstance(event, Started):
            if attempt := self._attempts.get(event.request_id):
                attempt.started_s = event.now_s
        elif isinstance(event, Finished | Failed | Cancelled):
            attempt = self._attempts.pop(event.request_id, None)
            if attempt and isinstance(event, Finished):
                self.ended.append((attempt, event))


def _tells(attempt: _Attempt, end: Finished) -> bool:
    if not attempt.alone or attempt.started_s is None or not end.prompt_tokens or not end.output_tokens:
        return False
    gaps = end.output_tokens - 1
    waited = attempt.started_s > attempt.sent_s and (end.cached_tokens or 0) < end.prompt_tokens
    return waited and (not gaps or end.now_s - attempt.started_s > gaps * _STREAMED_GAP_S)


def _samples(attempt: _Attempt, end: Finished, step_tokens: int, *, held_out: bool) -> Iterable[Sample]:
    assert attempt.started_s is not None
    assert end.prompt_tokens
    assert end.output_tokens
    yield Sample(
        kind="prefill",
        steps=tuple(prefill_steps(end.prompt_tokens, end.cached_tokens or 0, step_tokens)),
        seconds=attempt.started_s - attempt.sent_s,
        held_out=held_out,
    )
    if end.output_tokens > 1:
        yield Sample(
            kind="decode",
            steps=tuple(decode_steps(1, end.prompt_tokens, end.output_tokens - 1)),
            seconds=end.now_s - attempt.started_s,
            held_out=held_out,
        )

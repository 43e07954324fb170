"""What a fleet's events tell of its engines' steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millrace.core.calibration import recorded
from millrace.core.event import Action, Cancelled, Dispatch, Event, Failed, Finished, Refuse, Started, Ticked

Entries = list[tuple[Event, Sequence[Action]]]


def _request(
    id: str, at_s: float, *, replica: str = "r0", prompt: int | None = 600, output: int | None = 3
) -> Entries:
    """One request that has its replica for a second: half for the prompt, half for the answer."""
    sent: Sequence[Action] = [Dispatch(id, replica)]
    return [
        (Ticked(at_s), sent),
        (Started(at_s + 0.5, id), []),
        (Finished(at_s + 1.0, id, prompt, output, cached_tokens=100), []),
    ]


def _alone(entries: Entries) -> int:
    return recorded(entries, step_tokens=512).alone


def test_a_request_alone_gives_a_prefill_and_a_decode() -> None:
    found = recorded(_request("a", 0.0), step_tokens=512)
    assert (found.finished, found.alone, found.lengths) == (1, 1, 1)
    prefill, decode = found.samples
    assert [one.prefill_tokens for one in prefill.steps] == [500]
    assert [one.decode_context_tokens for one in decode.steps] == [600, 601]
    assert (prefill.seconds, decode.seconds) == (0.5, 0.5)


def test_every_fifth_request_is_held_out() -> None:
    entries = [line for i in range(10) for line in _request(str(i), 2.0 * i, output=1)]
    found = recorded(entries, step_tokens=512)
    assert [one.held_out for one in found.samples] == [False, False, False, False, True] * 2


def test_requests_that_share_a_replica_tell_nothing() -> None:
    first, second = _request("a", 0.0), _request("b", 0.2)
    entries = sorted(first + second, key=lambda line: line[0].now_s)
    assert _alone(entries) == 0
    apart = sorted(first + _request("b", 0.2, replica="r1"), key=lambda line: line[0].now_s)
    assert _alone(apart) == 2
    assert recorded(apart, step_tokens=512, replica="r1").alone == 1


def test_a_request_that_went_away_leaves_the_replica_to_the_next() -> None:
    for gone in (Failed(0.1, "a", "reset"), Cancelled(0.1, "a")):
        entries: Entries = [(Ticked(0.0), [Dispatch("a", "r0")]), (gone, []), *_request("b", 0.2)]
        found = recorded(entries, step_tokens=512)
        assert (found.finished, found.alone) == (1, 1)


@pytest.mark.parametrize(
    "entries",
    [
        _request("a", 0.0, prompt=None),
        _request("a", 0.0, output=None),
        _request("a", 0.0, prompt=100),
        _request("a", 0.0, output=100_000),
        [(Ticked(0.0), [Dispatch("a", "r0")]), (Finished(1.0, "a", 600, 1), [])],
        [
            (Started(0.0, "a"), []),
            (Finished(1.0, "a", 600, 1), []),
            (Ticked(2.0), [Refuse("b", "full", 503)]),
        ],
    ],
    ids=["no prompt", "no output", "all cached", "not streamed", "never started", "never sent"],
)
def test_a_request_that_does_not_tell_is_left_out(entries: Entries) -> None:
    found = recorded(entries, step_tokens=512)
    assert found.alone == 0
    assert found.samples == []

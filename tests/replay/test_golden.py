"""Decisions on record are taken again, bit for bit: who means to change one records the log again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec import UNSET

from millrace.control.log import entry, read_entry, replay
from millrace.core.event import Cancel, Dispatch, Refuse
from tests.replay.scenario import GOLDEN, Scenario

AGAIN = "decisions changed; if they were meant to: python -m tests.replay.scenario"
RECORDED = sorted(path.stem for path in GOLDEN.glob("*.jsonl"))


def _golden(routing: str) -> list[bytes]:
    return (GOLDEN / f"{routing}.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("routing", RECORDED)
def test_a_golden_log_replays_bit_for_bit(routing: str) -> None:
    found = replay(_golden(routing))
    assert found.first_difference is None, f"line {found.first_difference}: {AGAIN}"
    assert found.identical == found.actions > 70


@pytest.mark.parametrize("routing", RECORDED)
def test_the_same_scenario_records_the_same_log(routing: str) -> None:
    assert Scenario(routing).play() == b"".join(_golden(routing)), AGAIN


@pytest.mark.parametrize("routing", RECORDED)
def test_a_golden_log_has_seen_everything_that_can_happen(routing: str) -> None:
    actions = [action for line in _golden(routing)[1:] for action in read_entry(line, 0).actions]
    assert {a.attempt for a in actions if isinstance(a, Dispatch)} == {1, 2}
    sent = {name for a in actions if isinstance(a, Dispatch) for name in (a.replica, a.prefill_on)}
    assert sent - {UNSET} == {"fast", "slow", "unknown", "other"}
    assert {a.status for a in actions if isinstance(a, Refuse)} >= {404, 429, 503, 504}
    assert any(isinstance(a, Cancel) for a in actions)


def _changed(log: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield logs in which one dispatch went elsewhere, with the number of its line."""
    for number, line in enumerate(log[1:], 2):
        found = read_entry(line, number)
        if any(isinstance(action, Dispatch) for action in found.actions):
            elsewhere = entry(found.event, [Dispatch("q", "elsewhere")])
            yield number, [*log[: number - 1], elsewhere, *log[number:]]


@pytest.mark.parametrize("routing", RECORDED)
def test_a_decision_that_changed_is_reported_with_its_line(routing: str) -> None:
    for number, log in list(_changed(_golden(routing)))[:5]:
        assert replay(log).first_difference == number


def test_another_policy_does_not_replay_the_same_decisions() -> None:
    log = _golden("least_work")
    log[0] = _golden("round_robin")[0]
    assert replay(log).first_difference is not None

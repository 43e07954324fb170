"""A log tells how to build its controller, replays to the same answers, and names the line that fails."""

from __future__ import annotations

import pytest

from millrace.control import Controller, ControlSettings
from millrace.control.log import LogError, controller_of, entry, header, read_entry, read_header, replay
from millrace.core.event import Arrived, Dispatch, Event, Finished, Reported, Ticked
from millrace.core.replica import ReplicaSpec
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.policies.own import Bare, Patient

JOINED = Reported(0.0, "a", "ready", ReplicaSpec(models=("m",)))
EVENTS: list[Event] = [
    JOINED,
    Arrived(1.0, fakes.request("q", blocks=(1, 2))),
    Finished(2.0, "q"),
    Ticked(3.0),
]


def _controller() -> Controller:
    settings = ControlSettings(max_attempts=2, max_hold_s=7.5)
    return Controller(load("routing", "two_choices(seed=7)"), load("queueing", "fcfs"), settings)


def _log() -> list[bytes]:
    controller = _controller()
    return [header(controller, source="a test"), *(entry(e, controller.on(e)) for e in EVENTS)]


def test_a_header_builds_the_controller_again() -> None:
    found = read_header(_log()[0])
    again = controller_of(found)
    assert (again.routing, again.queueing) == (
        load("routing", "two_choices(seed=7)"),
        load("queueing", "fcfs"),
    )
    assert again.settings == ControlSettings(max_attempts=2, max_hold_s=7.5)
    assert found.notes == {"source": "a test"}
    assert header(again, source="a test") == _log()[0]


def test_only_a_last_line_without_an_end_may_be_cut_off() -> None:
    lines = _log()
    lines[-1] = lines[-1][:-9]
    found = replay(lines)
    assert (found.events, found.first_difference, found.cut_off) == (3, None, True)
    assert not replay(_log()).cut_off
    for broken in ([*lines[:-1], lines[-1] + b"\n"], [*lines, _log()[-1]]):
        with pytest.raises(LogError, match="line 5 cannot be read"):
            replay(broken)


def test_an_empty_log_is_called_empty() -> None:
    with pytest.raises(LogError, match="the log is empty"):
        replay([])


def test_a_header_builds_a_policy_of_your_own_again() -> None:
    made = Controller(Patient(why="later"), load("queueing", "fcfs"))
    assert controller_of(read_header(header(made))).routing == Patient(why="later")


def test_a_policy_that_could_not_be_built_again_cannot_be_logged() -> None:
    made = Controller(Bare(), load("queueing", "fcfs"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not a dataclass"):
        header(made)


def test_an_entry_is_one_line_that_reads_back() -> None:
    line = entry(EVENTS[1], [Dispatch("q", "a")])
    assert line.count(b"\n") == 1
    found = read_entry(line, 2)
    assert (found.event, found.actions) == (EVENTS[1], [Dispatch("q", "a")])


def test_a_log_replays_to_the_same_answers() -> None:
    found = replay(_log())
    assert (found.events, found.actions, found.identical, found.first_difference) == (4, 1, 1, None)


def test_a_log_of_nothing_replays() -> None:
    assert replay(_log()[:1]).events == 0


def test_an_answer_that_differs_is_reported_with_its_line() -> None:
    log = _log()
    log[2] = entry(EVENTS[1], [Dispatch("q", "b")])
    log[4] = entry(EVENTS[3], [Dispatch("q", "b")])
    found = replay(log)
    assert (found.actions, found.identical, found.first_difference) == (2, 0, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "line 1 is no log header .*; is this a Millrace event log"),
        (b"not json", "line 1 is no log header"),
        (b'{"time": 3}', "line 1 is no log header .*missing required field `schema`"),
        (b'{"schema": "\xff"}', "line 1 is no log header .*invalid"),
        (b'{"schema": "millrace.log/1"}', "line 1 is no log header .*missing required field `routing`"),
        (
            b'{"schema": "millrace.log/0", "policy": "old"}',
            "says schema 'millrace.log/0'; this version",
        ),
        (b'{"schema": "millrace.log/2"}', "line 1 says schema 'millrace.log/2'"),
    ],
)
def test_a_first_line_that_is_no_header_is_named(line: bytes, message: str) -> None:
    with pytest.raises(LogError, match=message):
        replay([line])


def test_a_log_of_a_policy_that_is_gone_is_named() -> None:
    log = _log()
    with pytest.raises(LogError, match="line 1: no routing policy is called 'three_choices'"):
        replay([log[0].replace(b"two_choices", b"three_choices")])
    with pytest.raises(LogError, match=r"line 1: .* has no setting 'sead'"):
        replay([log[0].replace(b"seed", b"sead")])


@pytest.mark.parametrize("line", [b"", b"{", b'{"event": {"type": "Slept"}, "actions": []}', b'{"\xff": 1}'])
def test_a_line_that_cannot_be_read_is_numbered(line: bytes) -> None:
    with pytest.raises(LogError, match="line 3 cannot be read"):
        replay([*_log()[:2], line + b"\n"])


def test_an_event_that_makes_no_sense_is_numbered() -> None:
    twice = entry(EVENTS[1], [])
    with pytest.raises(LogError, match="line 4: request id 'q' is in flight already"):
        replay([*_log()[:3], twice])

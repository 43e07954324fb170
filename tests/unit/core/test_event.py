"""Events and actions are JSON lines that say what kind they are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from millrace.core.event import Action, Cancel, Dispatch, Event, Failed, Finished, Refuse, Reported, Ticked
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.testing import strategies


@given(strategies.histories(longest=12))
def test_every_event_survives_a_log(history: list[Event]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(history), type=list[Event]) == history


@pytest.mark.parametrize(
    "action",
    [
        Dispatch("q", "r"),
        Dispatch("q", "r", 2),
        Cancel("q", "r"),
        Refuse("q", "full", 429, 1.5),
        Refuse("q", "", 404),
    ],
)
def test_every_action_survives_a_log(action: Action) -> None:
    assert msgspec.json.decode(msgspec.json.encode(action), type=Action) == action


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Ticked(1.5), b'{"type":"Ticked","now_s":1.5}'),
        (Finished(2.0, "q"), b'{"type":"Finished","now_s":2.0,"request_id":"q"}'),
        (Failed(2.0, "q", "reset"), b'{"type":"Failed","now_s":2.0,"request_id":"q","why":"reset"}'),
    ],
)
def test_a_line_leaves_out_what_was_not_said(event: Event, line: bytes) -> None:
    assert msgspec.json.encode(event) == line


def test_a_report_carries_everything_that_is_known_of_a_replica() -> None:
    spec = ReplicaSpec(
        models=("m", "n"), device="cpu", limits=Limits(sequences=4), prefill_tokens_per_s=900.0
    )
    report = Report(now_s=3.0, running=1, waiting=0, kv_free_tokens=640, power_w=80.5)
    event = Reported(3.0, "r", "ready", spec, report)
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


def test_a_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="asleep"):
        msgspec.json.decode(b'{"type":"Reported","now_s":0,"replica":"r","phase":"asleep"}', type=Event)

"""Recording what a controller answered to a history, and replaying it."""

from __future__ import annotations

from collections.abc import Iterable

from millrace.control import Controller, ControlSettings
from millrace.control.log import entry, header, replay
from millrace.core.event import Event
from millrace.policies import load

IMPATIENT = ControlSettings(max_attempts=2, max_held=3, max_hold_s=5.0)


def recorded(history: Iterable[Event], *, routing: str = "least_work", queueing: str = "fcfs") -> list[bytes]:
    """Return the log of an impatient controller to which this happened."""
    controller = Controller(load("routing", routing), load("queueing", queueing), IMPATIENT)
    return [header(controller), *(entry(event, controller.on(event)) for event in history)]


def replays(log: list[bytes]) -> bool:
    """Whether a fresh controller gives the answers on record."""
    found = replay(log)
    return found.first_difference is None and found.identical == found.actions

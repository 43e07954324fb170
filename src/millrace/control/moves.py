"""Ask a migration policy from time to time, and book the moves that it wants."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.control.flight import Flight
from millrace.control.lawful import objection
from millrace.control.state import State
from millrace.core.event import Move, Moved
from millrace.core.fleet import MigrationPolicy


class Moves:
    """`due_s` is when the policy is asked next; None while no request is under way."""

    def __init__(self, policy: MigrationPolicy, state: State) -> None:
        if not policy.period_s > 0:
            raise ValueError(f"period_s is {policy.period_s}; ask a migration policy every so many seconds")
        self.policy = policy
        self.due_s: float | None = None
        self._state = state

    def turn(self, now_s: float) -> Iterator[tuple[Flight, Move]]:
        """Book the moves that are wanted now, if it is time to ask, and yield each once it is booked."""
        if not self._state.flights:
            self.due_s = None
        elif self.due_s is None:
            self.due_s = now_s + self.policy.period_s
        elif now_s >= self.due_s:
            self.due_s = now_s + self.policy.period_s
            yield from self._ask(now_s)

    def _ask(self, now_s: float) -> Iterator[tuple[Flight, Move]]:
        state = self._state
        for shift in self.policy.rebalance(state.view(now_s, "")):
            if wrong := objection(shift, state.flights, state.replicas):
                raise ValueError(f"{type(self.policy).__module__} {wrong}")
            flight = state.flights[shift.request_id]
            assert flight.replica is not None
            move = Move(shift.request_id, flight.replica, shift.replica, flight.started)
            if flight.started:
                state.set_out(flight, shift.replica)
            else:
                state.shift(flight, shift.replica, now_s)
            yield flight, move


def over(state: State, flight: Flight, event: Moved) -> str | None:
    """Note where a request runs after a move; return the replica that it left, None if it stayed."""
    if event.replica == flight.moving_to:
        flight.failed = frozenset()
        return state.settle(flight)
    flight.failed |= {"replay" if flight.replays else "move"}
    state.stay(flight)
    return None

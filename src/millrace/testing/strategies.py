"""What `millrace.testing.cases` puts together, chosen by hypothesis, which must be installed for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from millrace.core.event import Event
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.request import Request
from millrace.testing import cases
from millrace.testing.cases import Case, Choose, Queue


@st.composite
def requests(draw: st.DrawFn, id: str = "q") -> Request:
    """Requests for model "m" or "n" with prefixes that others may share."""
    return cases.request_from(_choose(draw), id)


@st.composite
def replicas(draw: st.DrawFn, id: str = "r") -> ReplicaView:
    """Replicas in any phase and the middle of their work; unknown speeds and reports are common."""
    return cases.replica_from(_choose(draw), id)


@st.composite
def fleets(draw: st.DrawFn, largest: int = 5) -> FleetView:
    """Fleets of up to `largest` replicas."""
    return cases.fleet_from(_choose(draw), largest=largest)


@st.composite
def decisions(draw: st.DrawFn, largest: int = 5) -> Case:
    """A request and the fleet it is to be routed in."""
    return cases.case_from(_choose(draw), largest=largest)


@st.composite
def queues(draw: st.DrawFn, longest: int = 8) -> Queue:
    """Held requests in the order of their arrival, and the fleet they wait for."""
    return cases.queue_from(_choose(draw), longest=longest)


@st.composite
def histories(draw: st.DrawFn, longest: int = 40) -> list[Event]:
    """What may happen to a fleet, in order of time; requests and replicas come and go."""
    return cases.history_from(_choose(draw), events=draw(st.integers(0, longest)))


def _choose(draw: st.DrawFn) -> Choose:
    def choose(options: Sequence[Any]) -> Any:
        return draw(st.sampled_from(options))

    return choose

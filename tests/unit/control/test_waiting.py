"""At most so many wait at a replica: the others are held, and go on in the order of the queueing policy."""

from __future__ import annotations

import pytest

from millrace.control import ControlSettings
from millrace.core.event import Dispatch, Failed, Finished, Reported, Started
from millrace.core.replica import ReplicaSpec
from tests.unit.control.scripted import arrive, controller_of

SPEC = ReplicaSpec(models=("m",))


def test_who_finds_every_replica_full_is_held_until_somebody_started() -> None:
    controller = controller_of(routing="least_request", max_waiting=1)
    for name in "ab":
        controller.on(Reported(0.0, name, "ready", SPEC))
    first, second = arrive(controller, "q0"), arrive(controller, "q1")
    assert {one.replica for one in (*first, *second) if isinstance(one, Dispatch)} == {"a", "b"}
    assert arrive(controller, "q2") == arrive(controller, "q3") == []
    (sent,) = controller.on(Started(1.0, "q0"))
    assert isinstance(sent, Dispatch)
    assert (sent.request_id, sent.replica) == ("q2", controller.state.flights["q0"].replica)
    controller.on(Finished(2.0, "q1"))
    assert not controller.state.held


def test_a_replica_on_which_it_failed_is_better_than_a_full_one() -> None:
    controller = controller_of(routing="least_request", max_waiting=1)
    controller.on(Reported(0.0, "a", "ready", SPEC))
    arrive(controller, "q0")
    controller.on(Reported(0.0, "b", "ready", SPEC))
    arrive(controller, "q1")
    again = controller.on(Failed(1.0, "q1", "it broke"))
    assert again == [Dispatch("q1", "b", 2)]


def test_who_failed_goes_elsewhere_if_there_is_room() -> None:
    controller = controller_of(routing="least_request", max_waiting=2)
    for name in "ab":
        controller.on(Reported(0.0, name, "ready", SPEC))
    (sent,) = arrive(controller, "q0")
    assert isinstance(sent, Dispatch)
    (again,) = controller.on(Failed(1.0, "q0", "it broke"))
    assert isinstance(again, Dispatch)
    assert again.replica != sent.replica


def test_a_replica_that_takes_one_at_a_time_gets_the_next_when_the_last_one_ended() -> None:
    controller = controller_of(routing="least_request", max_in_flight=1)
    for name in "ab":
        controller.on(Reported(0.0, name, "ready", SPEC))
    first, second = arrive(controller, "q0"), arrive(controller, "q1")
    assert {one.replica for one in (*first, *second) if isinstance(one, Dispatch)} == {"a", "b"}
    assert arrive(controller, "q2") == arrive(controller, "q3") == controller.on(Started(1.0, "q0")) == []
    where = controller.state.flights["q0"].replica
    assert where is not None
    assert controller.on(Finished(2.0, "q0")) == [Dispatch("q2", where, 1)]


def test_the_number_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="max_waiting is 0"):
        ControlSettings(max_waiting=0)
    with pytest.raises(ValueError, match="max_in_flight is 0"):
        ControlSettings(max_in_flight=0)

"""The books of a fleet: what each event adds to a replica, the next one takes away."""

from __future__ import annotations

import pytest

from millrace.core.event import Finished, Reported, Started
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.testing import fakes
from tests.unit.control.scripted import arrive, controller_of, counts, join


def test_a_request_moves_from_the_replicas_queue_to_its_memory_and_out() -> None:
    controller = controller_of("a")
    arrive(controller, "q0", prompt_tokens=100)
    arrive(controller, "q1", prompt_tokens=30)
    assert counts(controller, "a") == (2, 0, 130, 0)
    controller.on(Started(1.0, "q0"))
    assert counts(controller, "a") == (1, 1, 30, 100)
    controller.on(Started(2.0, "q1"))
    assert counts(controller, "a") == (0, 2, 0, 130)
    controller.on(Finished(3.0, "q0"))
    assert counts(controller, "a") == (0, 1, 0, 30)


def test_a_prompt_sent_before_is_not_queued_again() -> None:
    controller = controller_of("a")
    arrive(controller, "q0", prompt_tokens=100, blocks=(1, 2, 3))
    arrive(controller, "q1", prompt_tokens=100, blocks=(1, 2, 9))
    assert counts(controller, "a") == (2, 0, 100 + 68, 0)
    controller.on(Finished(1.0, "q0"))
    assert counts(controller, "a") == (1, 0, 68, 0)


def test_a_replica_must_say_what_it_is_when_it_first_reports() -> None:
    with pytest.raises(ValueError, match="replica 'a' is new: its first Reported must carry a spec"):
        controller_of().on(Reported(0.0, "a", "ready"))


def test_a_replica_keeps_its_spec_and_report_until_it_says_otherwise() -> None:
    controller = controller_of("a")
    view = controller.state.replicas["a"]
    controller.on(Reported(1.0, "a", "ready", report=Report(now_s=1.0, waiting=4)))
    controller.on(Reported(2.0, "a", "draining"))
    assert (view.spec.models, view.report) == (("m",), Report(now_s=1.0, waiting=4))
    controller.on(Reported(3.0, "a", "ready", ReplicaSpec(models=("m", "n")), Report(now_s=3.0)))
    assert (view.spec.models, view.report) == (("m", "n"), Report(now_s=3.0))


@pytest.mark.parametrize("phase", ["starting", "gone"])
def test_a_replica_that_starts_anew_has_an_empty_cache_and_has_said_nothing(phase: str) -> None:
    controller = controller_of("a")
    controller.on(Reported(1.0, "a", "ready", report=Report(now_s=1.0, waiting=4)))
    arrive(controller, "q", 1.0, blocks=(1, 2, 3))
    controller.on(Reported(2.0, "a", phase))  # type: ignore[arg-type]
    view = controller.state.replicas["a"]
    assert view.prefix.matched_tokens(fakes.request(blocks=(1, 2, 3))) == 0
    assert view.report is None
    controller.on(Reported(3.0, "a", phase, report=Report(now_s=3.0, waiting=0)))  # type: ignore[arg-type]
    assert view.seen_s == 3.0


def test_the_memory_of_each_prefix_index_is_told() -> None:
    controller = controller_of("a", prefix_index_bytes=1200)
    join(controller, "b", "ready", "n")
    for n in range(40):
        arrive(controller, f"q{n}", blocks=tuple(range(n * 100, n * 100 + 6)))
    assert controller.prefix_index_bytes() == {"a": 1200, "b": 0}


def test_requests_sent_are_counted_by_model() -> None:
    controller = controller_of("a")
    join(controller, "b", "ready", "n")
    for n in range(5):
        arrive(controller, f"q{n}", model="mn"[n == 0])
    assert controller.state.routed == {"n": 1, "m": 4}


def test_adapters_last_sent_to_a_replica_are_believed_to_be_there() -> None:
    controller = controller_of("a")
    view = controller.state.replicas["a"]
    view.spec = ReplicaSpec(models=("m",), limits=Limits(adapters=2))
    for number, adapter in enumerate(("x", "y", "x", "z")):
        arrive(controller, f"q{number}", adapter=adapter)
    assert list(view.adapters) == ["x", "z"]
    controller.on(Reported(1.0, "a", "ready", report=Report(now_s=1.0, adapters=("y",))))
    controller.on(Reported(2.0, "a", "ready", report=Report(now_s=2.0)))
    assert list(view.adapters) == ["y"]
    controller.on(Reported(3.0, "a", "gone"))
    assert not view.adapters


def test_of_a_replica_without_a_limit_many_adapters_are_remembered() -> None:
    controller = controller_of("a")
    for number in range(3):
        arrive(controller, f"q{number}", adapter=f"x{number}")
    assert controller.state.replicas["a"].adapters == ("x0", "x1", "x2")

"""Who waits because of saturation or for room, and who is refused because it would be answered too late."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millrace.control import Band, Controller, ControlSettings, QueueSettings, Saturation
from millrace.core.event import Action, Dispatch, Failed, Finished, Reported, Started, Ticked
from millrace.core.replica import Limits, ReplicaSpec, Report
from millrace.core.request import Slo
from tests.unit.control.scripted import Capped, arrive, controller_of
from tests.unit.control.test_queue_rules import Newest, Shortest, reason

LIMITS = Limits(step_tokens=100, sequences=2, kv_blocks=100, block_tokens=10)
SPEC = ReplicaSpec(models=("m",), limits=LIMITS)
FAST = ReplicaSpec(models=("m",), limits=LIMITS, prefill_tokens_per_s=100.0)


def ruled(spec: ReplicaSpec = SPEC, *, replicas: str = "a", **rules: Any) -> Controller:
    """Return a controller of these replicas that keeps these rules."""
    made = controller_of(routing="least_request", max_hold_s=100.0, queue=QueueSettings(**rules))
    for name in replicas:
        made.on(Reported(0.0, name, "ready", spec))
    return made


def said(controller: Controller, now_s: float, replica: str = "a", **fields: Any) -> list[Action]:
    """Let a replica report."""
    return controller.on(Reported(now_s, replica, "ready", report=Report(now_s=now_s, **fields)))


def sent(actions: list[Action]) -> list[str]:
    return [action.request_id for action in actions if isinstance(action, Dispatch)]


@pytest.mark.parametrize(
    ("fields", "is_full"),
    [
        ({}, True),  # it says neither
        ({"running": 3}, True),
        ({"waiting": 0}, False),
        ({"waiting": 4}, False),
        ({"waiting": 5}, True),
        ({"kv_free_tokens": 201}, False),  # of 1000
        ({"kv_free_tokens": 200}, True),
        ({"waiting": 0, "kv_free_tokens": 200}, True),
        ({"waiting": 5, "kv_free_tokens": 1000}, True),
    ],
)
def test_a_replica_is_saturated_beyond_its_thresholds_and_when_nobody_knows(
    fields: dict[str, Any], is_full: bool
) -> None:
    controller = ruled(saturation=Saturation())
    said(controller, 1.0, **fields)
    assert arrive(controller, "q", 1.0) == ([] if is_full else [Dispatch("q", "a")])


def test_a_report_counts_for_four_seconds_and_none_at_all_for_saturated() -> None:
    controller = ruled(saturation=Saturation())
    assert arrive(controller, "q0") == []
    assert sent(said(controller, 1.0, waiting=0)) == ["q0"]
    assert sent(arrive(controller, "q1", 5.0)) == ["q1"]
    assert arrive(controller, "q2", 5.25) == []
    assert sent(said(controller, 6.0, waiting=0)) == ["q2"]


def test_a_fleet_is_saturated_when_all_of_it_is() -> None:
    controller = ruled(replicas="ab", saturation=Saturation())
    said(controller, 1.0, "a", waiting=9)
    assert arrive(controller, "q0", 1.0) == []
    assert sent(said(controller, 1.0, "b", waiting=0)) == ["q0"]


def test_what_was_sent_counts_before_it_is_reported() -> None:
    controller = ruled(saturation=Saturation(waiting=2))
    said(controller, 0.0, waiting=0)
    assert sent([*arrive(controller, "q0"), *arrive(controller, "q1")]) == ["q0", "q1"]
    assert arrive(controller, "q2") == []
    assert sent(controller.on(Started(1.0, "q0"))) == ["q2"]


def test_who_may_be_shed_is_refused_while_the_fleet_is_saturated() -> None:
    controller = ruled(saturation=Saturation(waiting=1))
    said(controller, 0.0, waiting=0)
    assert sent(arrive(controller, "q0", priority=-1)) == ["q0"]
    assert reason(arrive(controller, "q1", priority=-1)) == (429, "rejected-saturated")
    assert arrive(controller, "q2", priority=0) == []


def test_who_may_be_shed_and_was_held_is_refused_when_it_is_its_turn() -> None:
    controller = controller_of(
        routing=Capped(), queue=QueueSettings(saturation=Saturation(waiting=2)), max_hold_s=100.0
    )
    controller.on(Reported(0.0, "a", "ready", SPEC, Report(now_s=0.0, waiting=0)))
    arrive(controller, "q0")
    assert arrive(controller, "q1", priority=-1) == []
    assert reason(controller.on(Reported(1.0, "a", "ready", report=Report(now_s=1.0, waiting=7)))) == (
        429,
        "rejected-saturated",
    )


def test_an_engine_is_sent_what_it_runs_at_a_time_and_a_few_more() -> None:
    controller = ruled(engine_queue=1)
    assert sent([action for n in range(5) for action in arrive(controller, f"q{n}")]) == ["q0", "q1", "q2"]
    assert controller.on(Started(1.0, "q0")) == []
    assert sent(controller.on(Finished(2.0, "q0"))) == ["q3"]


def test_how_many_run_at_a_time_is_learned_while_others_wait() -> None:
    controller = ruled(ReplicaSpec(models=("m",)), engine_queue=0)
    assert sent([*arrive(controller, "q0"), *arrive(controller, "q1")]) == ["q0"]
    said(controller, 1.0, running=1, waiting=0)
    assert sent(controller.on(Started(1.0, "q0"))) == ["q1"]
    said(controller, 2.0, running=1, waiting=1)
    assert arrive(controller, "q2", 2.0) == []
    assert controller.on(Started(3.0, "q1")) == []
    assert controller.on(Finished(4.0, "q0")) == []
    assert sent(controller.on(Finished(5.0, "q1"))) == ["q2"]
    assert controller.state.replicas["a"].slots == 1
    controller.on(Reported(6.0, "a", "starting"))
    assert controller.state.replicas["a"].slots is None


def late(**rules: Any) -> Controller:
    """Return a controller of a replica that computes 100 prompt tokens a second."""
    return ruled(FAST, drop_late="slo", **rules)


def test_who_would_miss_its_objective_behind_a_replicas_queue_is_not_sent() -> None:
    controller = late()
    promised = Slo(ttft_s=2.5)
    assert sent(arrive(controller, "q0", slo=promised)) == ["q0"]
    assert sent(arrive(controller, "q1", slo=promised)) == ["q1"]
    assert reason(arrive(controller, "q2", slo=promised)) == (503, "rejected-late")
    assert sent(arrive(controller, "q3")) == ["q3"]


def test_a_deadline_is_kept_in_the_same_way_and_objectives_only_if_asked_for() -> None:
    controller = ruled(FAST, drop_late="deadline")
    assert sent(arrive(controller, "q0", slo=Slo(ttft_s=0.1))) == ["q0"]
    assert reason(arrive(controller, "q1", deadline_s=1.5)) == (504, "rejected-late")
    assert sent(arrive(controller, "q2", deadline_s=2.0)) == ["q2"]


def test_what_the_cache_holds_need_not_be_computed_in_time() -> None:
    controller = late()
    blocks = tuple(range(6))
    asked: dict[str, Any] = {"blocks": blocks, "slo": Slo(ttft_s=0.5)}
    assert reason(arrive(controller, "q0", **asked)) == (503, "rejected-late")
    assert sent(arrive(controller, "q1", blocks=blocks)) == ["q1"]
    controller.on(Started(1.0, "q1"))
    assert sent(arrive(controller, "q2", 1.0, **asked)) == ["q2"]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ReplicaSpec(models=("m",), role="decode", prefill_tokens_per_s=1.0),
    ],
)
def test_nobody_is_dropped_on_a_guess(spec: ReplicaSpec) -> None:
    controller = late(replicas="ab")
    controller.on(Reported(0.0, "c", "ready", spec))
    assert len(sent([a for n in range(9) for a in arrive(controller, f"q{n}", slo=Slo(ttft_s=0.01))])) == 9


def test_who_is_held_is_dropped_as_soon_as_no_replica_could_be_in_time() -> None:
    controller = late(engine_queue=0)
    for n in range(2):
        arrive(controller, f"q{n}")
    for n in range(2):
        controller.on(Started(n + 1.0, f"q{n}"))
    assert arrive(controller, "q2", 2.0, slo=Slo(ttft_s=4.0)) == []
    due_s = controller.next_deadline_s() or 0.0
    assert due_s == pytest.approx(5.0, abs=0.05)  # its prompt takes a second, and a bit beside the others
    assert reason(controller.on(Ticked(due_s))) == (503, "rejected-late")


def test_who_is_held_has_longer_once_its_prompt_is_computed_for_another() -> None:
    queue = QueueSettings(engine_queue=0, drop_late="slo", starvation_s=None)
    controller = controller_of(routing="least_request", queueing=Newest(), max_hold_s=100.0, queue=queue)
    controller.on(Reported(0.0, "a", "ready", FAST))
    blocks = tuple(range(6))
    for n in range(2):
        arrive(controller, f"q{n}")
    arrive(controller, "q2", blocks=blocks, slo=Slo(ttft_s=20.0))
    before_s = controller.next_deadline_s() or 0.0
    assert arrive(controller, "q3", blocks=blocks) == []
    assert sent(controller.on(Finished(1.0, "q0"))) == ["q3"]
    for n in (1, 3):
        controller.on(Started(n + 1.0, f"q{n}"))
    assert controller.on(Ticked(before_s)) == []
    after_s = controller.next_deadline_s() or 0.0
    assert before_s < after_s
    assert reason(controller.on(Ticked(after_s))) == (503, "rejected-late")


def test_a_newcomer_behind_a_long_queue_is_refused_at_once() -> None:
    controller = late(engine_queue=0)
    for n in range(40):
        arrive(controller, f"q{n}")
    for n in range(20):
        controller.on(Started(float(n), f"q{n}"))
        controller.on(Finished(float(n), f"q{n}"))
    assert arrive(controller, "patient", 20.0, slo=Slo(ttft_s=30.0)) == []
    assert reason(arrive(controller, "hasty", 20.0, slo=Slo(ttft_s=10.0))) == (503, "rejected-late")


def test_a_deadline_may_be_as_far_away_as_a_number_can_say() -> None:
    controller = ruled(FAST, drop_late="deadline", engine_queue=0)
    for n in range(20):
        arrive(controller, f"q{n}")
    for n in range(10):
        controller.on(Started(n / 1000, f"q{n}"))
        controller.on(Finished(n / 1000, f"q{n}"))
    for n, deadline_s in enumerate((1e15, 1e300, 1.7e308)):
        assert arrive(controller, f"far{n}", 0.01, deadline_s=deadline_s) == []


def test_how_long_a_policy_lets_somebody_wait_that_keeps_its_own_order_is_not_known() -> None:
    controller = controller_of(
        routing="least_request",
        queueing=Shortest(),
        queue=QueueSettings(engine_queue=0, drop_late="slo"),
    )
    controller.on(Reported(0.0, "a", "ready", FAST))
    for n in range(40):
        arrive(controller, f"q{n}")
    for n in range(20):
        controller.on(Started(float(n), f"q{n}"))
        controller.on(Finished(float(n), f"q{n}"))
    assert arrive(controller, "hasty", 20.0, slo=Slo(ttft_s=10.0)) == []


def test_an_answer_that_goes_on_elsewhere_is_never_too_late() -> None:
    controller = late(replicas="ab")
    (first,) = arrive(controller, "q", slo=Slo(ttft_s=2.0))
    assert isinstance(first, Dispatch)
    controller.on(Started(1.0, "q"))
    again = controller.on(Failed(50.0, "q", "broken", replica_down=True, resume_tokens=3))
    assert sent(again) == ["q"]


def test_a_request_that_would_be_late_turns_to_a_model_that_is_in_time() -> None:
    controller = late()
    controller.on(Reported(0.0, "b", "ready", ReplicaSpec(models=("n",), prefill_tokens_per_s=1e6)))
    found = arrive(controller, "q", slo=Slo(ttft_s=0.5), fallbacks=("n",))
    assert found == [Dispatch("q", "b", model="n")]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Band(priority=1, max_held=0), "max_held of the band of priority 1 is 0"),
        (lambda: Band(priority=1, max_hold_s=-1.0), "max_hold_s of the band of priority 1 is -1.0"),
        (lambda: Band(priority=1, reserved=-1), "reserved of the band of priority 1 is -1"),
        (lambda: Band(priority=1, reserved=3, max_held=2), "reserve less"),
        (lambda: Band(priority=1, share=1.5), "share of the band of priority 1 is 1.5"),
        (lambda: Saturation(waiting=0), "waiting of saturation is 0"),
        (lambda: Saturation(kv_usage=0.0), "kv_usage of saturation is 0.0"),
        (lambda: Saturation(stale_after_s=0.0), "stale_after_s of saturation is 0.0"),
        (lambda: QueueSettings(bands=(Band(priority=1), Band(priority=1))), "each priority may begin one"),
        (
            lambda: QueueSettings(bands=(Band(priority=1, share=0.7), Band(priority=2, share=0.7))),
            "more than 1 together",
        ),
        (lambda: QueueSettings(max_held_per_tenant=0), "max_held_per_tenant is 0"),
        (lambda: QueueSettings(starvation_s=-1.0), "starvation_s is -1.0"),
        (lambda: QueueSettings(engine_queue=-1), "engine_queue is -1"),
        (
            lambda: ControlSettings(max_held=2, queue=QueueSettings(bands=(Band(priority=1, reserved=2),))),
            "max_held is 2; it must be more than the bands have reserved",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused_by_name(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_the_rules_survive_a_log() -> None:
    rules = QueueSettings(bands=(Band(priority=3, share=0.5),), saturation=Saturation(), drop_late="slo")
    settings = ControlSettings(queue=rules)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=ControlSettings) == settings
    assert b"queue" not in msgspec.json.encode(ControlSettings())

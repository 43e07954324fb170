"""Offline requests beside online ones: in their slack, and out of their way."""

from __future__ import annotations

from millrace.core.batch import BatchingPolicy, Grant, Plan, informed
from millrace.core.cost import Linear
from millrace.core.replica import Limits
from millrace.policies.batching.colocated import HORIZON, Policy
from millrace.replica.executor import StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence

A_TOKEN_A_MS = Linear(base_s=0.0, per_token_s=0.001)


def policy(tpot_s: float = 0.0205) -> BatchingPolicy:
    return informed(Policy(tpot_s=tpot_s, least_tokens=2), A_TOKEN_A_MS)


def replica(
    batching: BatchingPolicy, *, kv_blocks: int = 99, sequences: int = 8, step_tokens: int = 64
) -> Replica:
    limits = Limits(
        step_tokens=step_tokens, sequences=sequences, kv_blocks=kv_blocks, block_tokens=4, context_tokens=256
    )
    return Replica(limits, batching)


def add(to: Replica, name: str, prompt: int, *, offline: bool = False, answer: int = 50) -> None:
    to.add(Sequence(name, prompt, answer, priority=-offline))


def steps(of: Replica, count: int = 1) -> list[str]:
    """What the last of so many steps computes."""
    done: list[str] = []
    for _ in range(count):
        step = of.plan()
        assert step is not None
        done = [f"{chunk.sequence.id}:{chunk.tokens}" for chunk in step.chunks]
        of.commit(step, StepResult(1.0))
    return done


def test_online_requests_are_served_first_and_whoever_came_first_among_them() -> None:
    engine = replica(policy())
    for name, offline in (("off", True), ("on", False), ("on too", False)):
        add(engine, name, 3, offline=offline)
    assert [sequence.id for sequence in engine.waiting] == ["on", "on too", "off"]
    assert steps(engine) == ["on:3", "on too:3"]
    assert steps(engine) == ["on:1", "on too:1", "off:3"]


def test_an_offline_prompt_takes_what_time_a_step_leaves_and_goes_on_as_a_decode() -> None:
    engine = replica(policy())
    add(engine, "on", 3)
    add(engine, "off", 30, offline=True)
    assert steps(engine) == ["on:3"]
    assert steps(engine) == ["on:1", "off:19"]
    assert steps(engine) == ["on:1", "off:11"]
    assert steps(engine) == ["on:1", "off:1"]
    assert engine.batching.plan(engine.batch) == Plan(2, [], steps=HORIZON)


def test_a_step_that_admits_an_online_request_computes_nothing_offline() -> None:
    engine = replica(policy())
    add(engine, "off", 3, offline=True)
    assert steps(engine, 2) == ["off:1"]
    add(engine, "on", 5)
    assert steps(engine) == ["on:5"]
    assert steps(engine) == ["off:1", "on:1"]


def test_offline_decodes_that_are_too_many_for_the_time_rest_youngest_first() -> None:
    engine = replica(policy(0.0035))
    for n in range(4):
        add(engine, f"off{n}", 1, offline=True)
    steps(engine, 3)
    add(engine, "on", 1)
    assert steps(engine) == ["on:1"]
    assert steps(engine) == ["off0:1", "off1:1", "on:1"]


def test_beside_decodes_whose_steps_get_too_long_offline_ones_are_asked_for_each_time() -> None:
    cost = Linear(base_s=0.0, per_context_s=0.001)
    engine = replica(informed(Policy(tpot_s=0.020), cost))
    add(engine, "on", 4)
    add(engine, "off", 4, offline=True)
    steps(engine, 2)
    assert engine.batching.plan(engine.batch).steps == 1
    assert steps(engine) == ["on:1", "off:1"]
    assert steps(engine, 9) == ["on:1"]


def test_kv_blocks_and_seats_are_taken_from_offline_requests_youngest_first() -> None:
    engine = replica(policy(), kv_blocks=9)
    for name in ("off", "off too"):
        add(engine, name, 14, offline=True, answer=2)
    assert steps(engine) == ["off:14", "off too:6"]
    add(engine, "on", 10, answer=2)
    assert steps(engine) == ["on:10"]
    assert [sequence.id for sequence in engine.waiting] == ["off too"]
    seats = replica(policy(), sequences=2)
    for name in ("off", "off too"):
        add(seats, name, 4, offline=True)
    steps(seats)
    for name in ("on", "on too", "on three"):
        add(seats, name, 4)
    assert steps(seats) == ["on:4", "on too:4"]
    assert [sequence.id for sequence in seats.waiting] == ["on three", "off", "off too"]


def test_decodes_that_lack_a_block_take_it_from_an_offline_request_however_old() -> None:
    engine = replica(policy(), kv_blocks=6)
    add(engine, "off", 8, offline=True, answer=8)
    steps(engine)
    add(engine, "on", 12, answer=8)
    steps(engine, 2)
    assert [sequence.id for sequence in engine.running] == ["on"]
    assert engine.preemptions == 1


def test_nobody_who_can_predict_a_step_lets_offline_requests_run_alone_only() -> None:
    engine = replica(Policy())
    add(engine, "off", 70, offline=True)
    add(engine, "on", 5, answer=3)
    assert [steps(engine) for _ in range(4)] == [["on:5"], ["on:1"], ["on:1"], ["off:64"]]


def test_offline_requests_alone_leave_whoever_comes_to_wait_for_no_longer_than_a_step_in_time() -> None:
    engine = replica(policy())
    add(engine, "off", 50, offline=True)
    assert steps(engine) == ["off:20"]
    slow = replica(policy(0.0005))
    add(slow, "off", 50, offline=True)
    assert steps(slow) == ["off:2"]


def test_online_decodes_that_fill_a_step_go_on_without_the_offline_ones() -> None:
    engine = replica(policy(), step_tokens=2)
    add(engine, "off", 1, offline=True)
    steps(engine)
    for name in ("a", "b"):
        add(engine, name, 1)
    assert steps(engine) == ["a:1", "b:1"]
    add(engine, "c", 1)
    plan = engine.batching.plan(engine.batch)
    assert plan == Plan(0, [Grant("a", 1), Grant("b", 1)], steps=1)

"""Adapters on a device: who may go first, who is passed over, and who has to make way."""

from __future__ import annotations

import pytest

from millrace.core.batch import BatchView, Grant, Plan
from millrace.core.replica import Limits
from millrace.policies import load
from millrace.replica.adapters import AdapterBatch, batch_for
from millrace.replica.executor import Step, StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence


class Instant:
    """Does nothing in a second."""

    def run(self, step: Step) -> StepResult:
        return StepResult(1.0)


def replica(slots: int, *needs: str | None, sequences: int = 8, kv_blocks: int = 100) -> Replica:
    """A replica with waiting sequences q0, q1 and so on that need these adapters, for two tokens each."""
    limits = Limits(adapters=slots, sequences=sequences, kv_blocks=kv_blocks)
    made = Replica(limits, load("batching", "split_fuse"))
    for number, adapter in enumerate(needs):
        made.add(Sequence(f"q{number}", 16, 2, adapter=adapter))
    return made


def batch_of(made: Replica) -> AdapterBatch:
    assert isinstance(made.batch, AdapterBatch)
    return made.batch


def running(made: Replica) -> list[str]:
    return [sequence.id for sequence in made.running]


def test_whoever_needs_one_too_many_is_passed_over_and_keeps_its_place() -> None:
    made = replica(2, "a", "b", "c", "a", None, "d")
    made.step(Instant())
    assert running(made) == ["q0", "q1", "q3", "q4"]
    assert [sequence.id for sequence in made.waiting] == ["q2", "q5"]
    made.step(Instant())  # all four end
    made.step(Instant())
    assert running(made) == ["q2", "q5"]


def test_an_adapter_is_loaded_once_for_as_long_as_it_stays() -> None:
    made = replica(2, "a", "a", "b", sequences=2)
    batch = batch_of(made)
    loads = []
    while made.step(Instant()):
        loads.append(batch.take_loads())
    assert loads == [1, 0, 1, 0]
    assert list(batch.resident) == ["a", "b"]


def test_the_adapter_used_longest_ago_makes_way() -> None:
    made = replica(2, "a", "b", sequences=1)
    batch = batch_of(made)
    for adapter in ("a", "c"):
        while made.step(Instant()):
            pass
        made.add(Sequence(f"for {adapter}", 16, 2, adapter=adapter))
    while made.step(Instant()):
        pass
    assert list(batch.resident) == ["a", "c"]
    assert batch.take_loads() == 3


def test_an_adapter_in_use_stays_however_long_ago_it_came() -> None:
    made = Replica(Limits(adapters=2), load("batching", "split_fuse"))
    batch = batch_of(made)
    made.add(Sequence("long", 16, 50, adapter="a"))
    for number in range(3):
        made.add(Sequence(f"q{number}", 16, 1, adapter=f"b{number}"))
        made.step(Instant())
    assert set(batch.resident) == {"a", "b2"}


def test_an_abort_lets_the_adapter_go() -> None:
    made = replica(1, "a", "b")
    made.step(Instant())
    made.abort("q0")
    made.abort("q0")
    made.step(Instant())
    assert running(made) == ["q1"]


def test_who_is_preempted_gives_its_adapter_back() -> None:
    made = Replica(Limits(adapters=2, kv_blocks=4), load("batching", "split_fuse"))
    for name in ("a", "b"):
        made.add(Sequence(name, 32, 20, adapter=name))
    while not made.preemptions:
        made.step(Instant())
    while made.step(Instant()):
        pass
    assert len(batch_of(made).resident) == 2


def test_without_room_in_the_kv_cache_nobody_passes() -> None:
    made = replica(2, "a", "b", "a", kv_blocks=2)
    made.step(Instant())
    assert running(made) == ["q0", "q1"]


class Greedy:
    """Admits whoever waits last."""

    def plan(self, batch: BatchView) -> Plan:
        return Plan(0, [Grant("q1", 16)]) if len(batch.running) == 1 else Plan(0, [Grant("q0", 16)])


def test_a_policy_that_admits_whoever_does_not_wait_is_told_so() -> None:
    made = Replica(Limits(adapters=1), Greedy())
    made.add(Sequence("q0", 16, 9, adapter="a"))
    made.add(Sequence("q1", 16, 9, adapter="b"))
    made.step(Instant())
    with pytest.raises(ValueError, match="beyond the 1 adapters"):
        made.plan()


def test_nobody_waits_where_all_places_are_taken() -> None:
    made = replica(2, "a", "a", sequences=1)
    made.step(Instant())
    assert list(made.batch.waiting) == []


def test_a_limit_on_adapters_is_above_zero() -> None:
    with pytest.raises(ValueError, match="adapters must be at least 1"):
        Replica(Limits(adapters=0), load("batching", "split_fuse"))


def test_without_a_limit_adapters_are_nobodys_business() -> None:
    assert type(batch_for(Limits())).__name__ == "Batch"

"""Sequences whose prompt is computed elsewhere: blocks first, then a seat, then one token."""

from __future__ import annotations

from typing import Any

from millrace.core.replica import Limits
from millrace.policies import load
from millrace.replica.executor import Step, StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence


class Instant:
    """Does nothing in a second, and remembers how many tokens it was."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def run(self, step: Step) -> StepResult:
        self.tokens.append(step.shape.tokens)
        return StepResult(1.0)


def replica(**limits: Any) -> Replica:
    return Replica(Limits(**limits), load("batching", "split_fuse"))


def reserved(made: Replica) -> list[tuple[str, int]]:
    return [(sequence.id, tokens) for sequence, tokens in made.reserved()]


def test_an_imported_prompt_lacks_its_last_token_only() -> None:
    made, steps = replica(), Instant()
    made.expect(Sequence("q", 40, 3))
    assert made.step(steps) is None
    assert reserved(made) == [("q", 40)]
    assert made.step(steps) is None
    made.land("q")
    while made.step(steps):
        pass
    assert steps.tokens == [1, 1, 1]
    made.batch.pool.audit([])


def test_to_its_engine_the_last_token_of_an_imported_prompt_is_a_decode() -> None:
    made = replica()
    made.expect(Sequence("q", 40, 3))
    assert made.plan() is None
    made.reserved()
    made.land("q")
    step = made.plan()
    assert step is not None
    shape = step.shape
    assert (shape.decodes, shape.decode_context_tokens, shape.prefills, shape.emits) == (1, 39, 0, 1)


def test_who_expects_a_cache_may_be_forgotten_at_any_time() -> None:
    made, steps = replica(kv_blocks=4), Instant()
    for name in ("held", "line", "landed"):
        made.expect(Sequence(name, 30, 2))
    made.step(steps)
    assert reserved(made) == [("held", 30), ("line", 30)]
    assert made.abort("landed")  # it waits for blocks
    made.land("line")
    assert made.abort("line")  # it waits for a seat
    assert made.abort("held")  # its cache is on its way
    assert made.step(steps) is None
    made.batch.pool.audit([])
    assert not made.abort("held")


def test_who_keeps_blocks_does_so_until_it_is_aborted() -> None:
    made, steps = replica(kv_blocks=4), Instant()
    made.add(Sequence("kept", 40, 1, keeps=True))
    made.add(Sequence("next", 40, 1))
    made.step(steps)
    assert [sequence.id for sequence in made.waiting] == ["next"]
    assert made.step(steps) is None
    made.abort("kept")
    made.step(steps)
    assert not made.waiting
    made.batch.pool.audit([])


def test_who_is_preempted_computes_its_prompt_itself() -> None:
    made, steps = replica(kv_blocks=4), Instant()
    for name in ("a", "b"):
        made.expect(Sequence(name, 31, 9))
    made.step(steps)
    for name in ("a", "b"):
        made.land(name)
    while made.step(steps):
        pass
    assert made.preemptions == 1
    assert max(steps.tokens) > 31
    made.batch.pool.audit([])


def test_an_import_waits_for_its_adapter() -> None:
    made, steps = replica(adapters=1), Instant()
    for name in ("a", "b"):
        made.expect(Sequence(name, 30, 2, adapter=name))
    made.step(steps)
    for name in ("a", "b"):
        made.land(name)
    while made.step(steps):
        pass
    assert steps.tokens == [1, 1, 1, 1]

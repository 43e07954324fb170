"""Admission, the prefix cache and preemption: who holds KV blocks, and who must give them back."""

from __future__ import annotations

from collections.abc import Iterable

from millrace.core.replica import Limits
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.executor import StepResult
from millrace.replica.progress import Stepped
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence


def small(kv_blocks: int = 8, sequences: int = 4, step_tokens: int = 64) -> Replica:
    limits = Limits(step_tokens=step_tokens, sequences=sequences, kv_blocks=kv_blocks, block_tokens=4)
    return Replica(limits, Policy())


def advance(replica: Replica, ended: Iterable[str] = ()) -> Stepped:
    step = replica.plan()
    assert step is not None
    return replica.commit(step, StepResult(1.0, frozenset(ended)))


def ids(sequences: Iterable[Sequence]) -> list[str]:
    return [sequence.id for sequence in sequences]


def test_a_sequence_is_admitted_with_blocks_for_its_whole_prompt() -> None:
    replica = small(step_tokens=2)
    replica.add(Sequence("a", prompt_tokens=9, max_tokens=1))
    assert replica.queued_tokens == 9
    replica.plan()
    assert ids(replica.running) == ["a"]
    assert (replica.kv_free_tokens, replica.queued_tokens) == (5 * 4, 0)


def test_admission_stops_at_the_first_that_does_not_fit() -> None:
    replica = small()
    for name, prompt_tokens in (("a", 20), ("b", 20), ("c", 1)):
        replica.add(Sequence(name, prompt_tokens, max_tokens=2))
    advance(replica)
    assert ids(replica.running) == ["a"]
    assert ids(replica.waiting) == ["b", "c"]


def test_who_did_not_fit_is_admitted_once_blocks_are_free() -> None:
    replica = small()
    replica.add(Sequence("a", 20, max_tokens=2))
    replica.add(Sequence("b", 20, max_tokens=2))
    advance(replica)
    assert not replica.batch.waiting, "a policy sees nobody wait while nobody can be admitted"
    advance(replica)
    assert ids(replica.batch.waiting) == ["b"]
    advance(replica)
    assert ids(replica.running) == ["b"]


def test_no_more_sequences_run_than_the_limit_allows() -> None:
    replica = small(sequences=2)
    for name in "abc":
        replica.add(Sequence(name, 1, max_tokens=3))
    advance(replica)
    assert ids(replica.running) == ["a", "b"]
    assert ids(replica.waiting) == ["c"]


def test_a_second_prompt_computes_only_what_the_first_did_not() -> None:
    replica = small()
    first, second = Sequence("a", 10, 1, blocks=[1, 2]), Sequence("b", 13, 1, blocks=[1, 2, 3])
    replica.add(first)
    advance(replica)
    replica.add(second)
    assert replica.batch.missing_tokens(second) == 5
    step = replica.plan()
    assert step is not None
    assert [(chunk.start, chunk.tokens) for chunk in step.chunks] == [(8, 5)]
    assert second.cached_tokens == 8
    assert (replica.cache_query_tokens, replica.cache_hit_tokens) == (23, 8)


def test_a_fully_cached_prompt_still_computes_its_last_token_as_prefill() -> None:
    replica = small()
    replica.add(Sequence("a", 8, 1, blocks=[1, 2]))
    advance(replica)
    again = Sequence("b", 8, 1, blocks=[1, 2])
    replica.add(again)
    step = replica.plan()
    assert step is not None
    assert again.cached_tokens == 4
    assert (step.shape.decodes, step.shape.prefills, step.shape.prefill_tokens) == (0, 1, 4)


def test_one_token_left_of_a_cached_prompt_is_prefill_not_decode() -> None:
    replica = small()
    replica.add(Sequence("a", 8, 1, blocks=[1, 2]))
    advance(replica)
    replica.add(Sequence("b", 9, 1, blocks=[1, 2]))
    step = replica.plan()
    assert step is not None
    shape = step.shape
    assert (shape.decodes, shape.prefills, shape.prefill_tokens, shape.emits) == (0, 1, 1, 1)
    assert shape.prefill_attended_tokens == 1 * 8 + 1


def test_what_a_sequence_generated_is_found_by_the_next_turn() -> None:
    replica = small()
    first = Sequence("a", 4, max_tokens=5, blocks=[1])
    replica.add(first)
    for _ in range(4):
        advance(replica)
    first.blocks.append(2)
    advance(replica)
    second = Sequence("b", 12, 1, blocks=[1, 2, 3])
    replica.add(second)
    advance(replica)
    assert second.cached_tokens == 8


def test_equal_prompts_computed_side_by_side_stay_apart() -> None:
    replica = small()
    twins = [Sequence(name, 8, 2, blocks=[1, 2]) for name in "ab"]
    for twin in twins:
        replica.add(twin)
    advance(replica)
    assert set(twins[0].table).isdisjoint(twins[1].table)
    assert replica.batch.pool.findable == 2


def test_the_youngest_is_preempted_when_no_block_is_free_and_computes_again_later() -> None:
    replica = small(kv_blocks=2)
    old, young = Sequence("old", 4, max_tokens=5), Sequence("young", 4, max_tokens=5)
    replica.add(old)
    replica.add(young)
    advance(replica)
    step = replica.plan()
    assert step is not None
    assert ids(chunk.sequence for chunk in step.chunks) == ["old"]
    assert ids(replica.waiting) == ["young"]
    assert (young.length, young.computed, young.table) == (5, 0, [])
    assert (young.preemptions, replica.preemptions, replica.queued_tokens) == (1, 1, 5)
    replica.commit(step, StepResult(1.0))
    while old in replica.running:
        advance(replica)
    step = replica.plan()
    assert step is not None
    assert (step.shape.prefill_tokens, step.shape.emits) == (5, 1)
    assert not replica.commit(step, StepResult(1.0)).first


def test_several_preempted_sequences_return_in_the_order_in_which_they_ran() -> None:
    replica = small(kv_blocks=4)
    for name, max_tokens in (("a", 13), ("b", 9), ("c", 5)):
        replica.add(Sequence(name, 4, max_tokens))
    replica.add(Sequence("d", 4, 1))
    advance(replica)
    step = replica.plan()
    assert step is not None
    assert ids(replica.running) == ["a", "b"]
    assert ids(replica.waiting) == ["c"]
    replica.commit(step, StepResult(1.0))
    for _ in range(4):
        advance(replica)
    assert ids(replica.running) == ["a"]
    assert ids(replica.waiting) == ["b", "c"]


def test_a_sequence_that_is_itself_the_youngest_gives_way() -> None:
    replica = small(kv_blocks=3)
    replica.add(Sequence("old", 6, max_tokens=7))
    replica.add(Sequence("young", 4, max_tokens=5))
    advance(replica)
    advance(replica)
    assert ids(replica.running) == ["old"]
    assert ids(replica.waiting) == ["young"]


def test_a_preempted_sequence_finds_its_own_blocks_but_counts_no_second_hit() -> None:
    replica = small(kv_blocks=4)
    old, young = Sequence("old", 4, max_tokens=5), Sequence("young", 12, 2, blocks=[1, 2, 3])
    replica.add(old)
    replica.add(young)
    advance(replica)
    advance(replica)
    assert young.preemptions == 1
    while old in replica.running:
        advance(replica)
    step = replica.plan()
    assert step is not None
    assert step.chunks[0].start == 8
    assert young.cached_tokens == 0
    assert replica.cache_query_tokens == 16


def test_who_was_preempted_stays_out_of_that_step_even_if_it_would_fit() -> None:
    replica = small(kv_blocks=4)
    old, twin = Sequence("old", 8, max_tokens=5, blocks=[1, 2]), Sequence("twin", 8, 5, blocks=[1, 2])
    replica.add(old)
    replica.add(twin)
    advance(replica)
    advance(replica)
    assert ids(replica.waiting) == ["twin"]
    advance(replica)
    assert ids(replica.running) == ["old", "twin"]


def test_what_is_free_is_taken_before_anybody_is_preempted() -> None:
    replica = small(kv_blocks=3)
    replica.add(Sequence("gone", 4, max_tokens=1, blocks=[7]))
    advance(replica)
    for name in ("old", "young"):
        replica.add(Sequence(name, 4, max_tokens=5))
    advance(replica)
    assert replica.batch.pool.matched([7]) == 1
    replica.plan()
    assert ids(replica.waiting) == ["young"]
    assert replica.batch.pool.matched([7]) == 0, "the old one took that block, and only then was none left"

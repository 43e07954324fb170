"""The cycle of plan, run and commit, and what may come between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from millrace.core.batch import BatchView, Grant, Plan
from millrace.core.cost import StepShape
from millrace.core.replica import Limits
from millrace.policies.batching import prefill_first, split_fuse
from millrace.replica.executor import Step, StepResult
from millrace.replica.progress import Stepped
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence

LIMITS = Limits(step_tokens=8, sequences=4, kv_blocks=16, block_tokens=4, context_tokens=64)


def planned(replica: Replica) -> Step:
    step = replica.plan()
    assert step is not None
    return step


def advance(replica: Replica, ended: Iterable[str] = ()) -> Stepped:
    return replica.commit(planned(replica), StepResult(1.0, frozenset(ended)))


def ids(sequences: Iterable[Sequence]) -> list[str]:
    return [sequence.id for sequence in sequences]


class OneSecond:
    """An executor that computes nothing."""

    def run(self, step: Step) -> StepResult:
        return StepResult(1.0)


@dataclass
class Always:
    """A batching policy that has made up its mind."""

    made: Plan

    def plan(self, batch: BatchView) -> Plan:
        return self.made


def test_a_prompt_is_computed_then_decoded_to_its_last_token() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", prompt_tokens=5, max_tokens=3))
    prompt, second, third = (replica.step(OneSecond()) for _ in range(3))
    assert prompt is not None
    assert second is not None
    assert third is not None
    assert (ids(prompt.emitted), ids(prompt.first), prompt.ended) == (["a"], ["a"], [])
    assert (ids(second.emitted), second.first, second.seconds) == (["a"], [], 1.0)
    assert [(end.sequence.id, end.why) for end in third.ended] == [("a", "length")]
    assert replica.step(OneSecond()) is None
    assert (replica.running, replica.kv_free_tokens) == ([], 64)


def test_a_long_prompt_emits_only_with_its_last_chunk() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", prompt_tokens=20, max_tokens=1))
    chunks, emitted = [], []
    while step := replica.plan():
        chunks += [(chunk.start, chunk.tokens, chunk.emits) for chunk in step.chunks]
        emitted.append(len(replica.commit(step, StepResult(1.0)).emitted))
    assert chunks == [(0, 8, False), (8, 8, False), (16, 4, True)]
    assert emitted == [0, 0, 1]


def test_the_shape_counts_decodes_and_prompt_tokens_apart() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", prompt_tokens=3, max_tokens=9))
    replica.add(Sequence("b", prompt_tokens=10, max_tokens=9))
    first = planned(replica)
    replica.commit(first, StepResult(1.0))
    second = planned(replica)
    assert [chunk.tokens for chunk in first.chunks] == [3, 5]
    assert first.shape == StepShape(prefills=2, prefill_tokens=8, prefill_attended_tokens=6 + 15, emits=1)
    assert [chunk.tokens for chunk in second.chunks] == [1, 5]
    assert second.shape == StepShape(1, 3, 1, 5, 5 * 5 + 15, 2)


def test_a_token_may_end_a_sequence_early_and_even_at_its_limit() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("early", 1, max_tokens=9))
    replica.add(Sequence("late", 1, max_tokens=1))
    progress = advance(replica, ended=["early", "late", "unheard-of"])
    assert [(end.sequence.id, end.why) for end in progress.ended] == [("early", "stop"), ("late", "stop")]
    assert replica.plan() is None


def test_an_idle_replica_plans_nothing() -> None:
    assert Replica(LIMITS, split_fuse.Policy()).plan() is None


def test_prompts_that_do_not_fit_do_not_keep_others_from_decoding() -> None:
    replica = Replica(LIMITS, prefill_first.Policy())
    replica.add(Sequence("a", 40, max_tokens=2))
    replica.add(Sequence("b", 40, max_tokens=2))
    for _ in range(5):
        advance(replica)
    assert ids(advance(replica).emitted) == ["a"]


def test_a_waiting_sequence_can_be_aborted_once() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", 5, 5))
    assert replica.abort("a")
    assert not replica.abort("a")
    assert (len(replica.waiting), replica.queued_tokens, replica.plan()) == (0, 0, None)


def test_aborting_the_head_that_did_not_fit_lets_the_next_one_in() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    for name, prompt_tokens in (("a", 40), ("b", 40), ("c", 2)):
        replica.add(Sequence(name, prompt_tokens, max_tokens=9))
    for _ in range(6):
        advance(replica)
    assert ids(replica.running) == ["a"]
    replica.abort("b")
    advance(replica)
    assert ids(replica.running) == ["a", "c"]


def test_between_steps_an_aborted_sequence_frees_its_blocks_at_once() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", 5, 5))
    advance(replica)
    assert replica.abort("a")
    assert (replica.running, replica.kv_free_tokens) == ([], 64)


def test_during_a_step_an_aborted_sequence_keeps_its_blocks_until_commit() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    gone, stays = Sequence("gone", 4, 5), Sequence("stays", 4, 5)
    replica.add(gone)
    replica.add(stays)
    step = planned(replica)
    table = list(gone.table)
    assert replica.abort("gone")
    assert not replica.abort("gone")
    assert (gone.table, replica.kv_free_tokens) == (table, 56)
    progress = replica.commit(step, StepResult(1.0, frozenset({"gone"})))
    assert (ids(progress.emitted), progress.ended, replica.kv_free_tokens) == (["stays"], [], 60)


def test_an_id_can_be_used_again_while_its_aborted_namesake_is_in_flight() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", 4, 5))
    step = planned(replica)
    replica.abort("a")
    namesake = Sequence("a", 4, 5)
    replica.add(namesake)
    assert replica.commit(step, StepResult(1.0)).emitted == []
    assert advance(replica).emitted == [namesake]


def test_a_sequence_added_during_a_step_waits_for_the_next() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", 1, 5))
    step = planned(replica)
    replica.add(Sequence("b", 1, 5))
    assert ids(replica.commit(step, StepResult(1.0)).emitted) == ["a"]
    assert ids(advance(replica).emitted) == ["a", "b"]


@pytest.mark.parametrize("kv_blocks", [16, 4])
def test_a_sequence_that_can_never_be_completed_is_refused_with_figures(kv_blocks: int) -> None:
    limits = Limits(kv_blocks=kv_blocks, block_tokens=4, context_tokens=20)
    capacity = min(20, kv_blocks * 4 + 1)
    replica = Replica(limits, split_fuse.Policy())
    replica.add(Sequence("fits", capacity - 5, 5))
    with pytest.raises(ValueError, match=f"{capacity - 4} prompt_tokens .* 5 max_tokens .* {capacity} one"):
        replica.add(Sequence("large", capacity - 4, 5))
    while replica.step(OneSecond()):
        pass
    assert replica.kv_free_tokens == kv_blocks * 4


def test_empty_sequences_and_taken_ids_are_refused() -> None:
    replica = Replica(LIMITS, split_fuse.Policy())
    replica.add(Sequence("a", 1, 1))
    with pytest.raises(ValueError, match="'a' is already"):
        replica.add(Sequence("a", 1, 1))
    with pytest.raises(ValueError, match="at least 1"):
        replica.add(Sequence("b", 0, 1))
    with pytest.raises(ValueError, match="at least 1"):
        replica.add(Sequence("b", 1, 0))


@pytest.mark.parametrize("name", ["step_tokens", "sequences", "kv_blocks", "block_tokens"])
def test_limits_that_allow_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Replica(replace(Limits(), **{name: 0}), split_fuse.Policy())


@pytest.mark.parametrize(
    ("grants", "complaint"),
    [
        ([Grant("a", 9)], "granted 9 tokens; step_tokens allows 8"),
        ([Grant("a", 2), Grant("a", 2)], "one sequence twice"),
        ([Grant("a", 0)], "0 tokens to 'a'"),
    ],
)
def test_a_policy_that_breaks_the_limits_is_told_so(grants: list[Grant], complaint: str) -> None:
    replica = Replica(LIMITS, Always(Plan(0, grants)))
    replica.add(Sequence("a", 20, 5))
    with pytest.raises(ValueError, match=complaint):
        replica.plan()


def test_a_policy_that_admits_too_many_is_told_so() -> None:
    replica = Replica(replace(LIMITS, sequences=1), Always(Plan(0, [Grant("a", 1), Grant("b", 1)])))
    replica.add(Sequence("a", 1, 5))
    replica.add(Sequence("b", 1, 5))
    with pytest.raises(ValueError, match="admitted 'b' beyond the 1 sequences"):
        replica.plan()


def test_a_policy_may_let_the_replica_rest() -> None:
    replica = Replica(LIMITS, Always(Plan()))
    replica.add(Sequence("a", 20, 5))
    assert replica.plan() is None


def test_a_grant_beyond_what_is_missing_is_cut() -> None:
    replica = Replica(LIMITS, Always(Plan(0, [Grant("a", 8)])))
    replica.add(Sequence("a", 3, 5))
    assert planned(replica).shape.tokens == 3

"""How many iterations one plan stands for."""

from __future__ import annotations

from collections.abc import Sequence as Many

import pytest

from millrace.core.batch import BatchingPolicy
from millrace.core.replica import Limits
from millrace.policies.batching import prefill_first
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.executor import Run
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from millrace.replica.table import Table


def begun(*lengths: tuple[int, int], kv_blocks: int = 100, policy: BatchingPolicy | None = None) -> Replica:
    """A replica whose prompts, (prompt tokens, answer tokens) each, are computed as far as one step goes."""
    replica = Replica(Limits(step_tokens=64, kv_blocks=kv_blocks, block_tokens=4), policy or Policy())
    for n, (prompt, answer) in enumerate(lengths):
        replica.add(Sequence(f"s{n}", prompt, answer))
    run = next_run(replica)
    replica.finish(run, 1)
    return replica


def next_run(replica: Replica) -> Run:
    """What the replica does next."""
    run = replica.begin()
    assert run is not None
    return run


def next_lasts(replica: Replica) -> int:
    """How long the next plan lasts."""
    return replica.lasting(next_run(replica))


def run_out(replica: Replica) -> Many[int]:
    """Play to the end in runs as long as they may be; return how long they were."""
    counts = []
    while run := replica.begin():
        counts.append(replica.lasting(run))
        replica.finish(run, counts[-1])
    return counts


def test_decodes_go_on_until_the_first_of_them_ends() -> None:
    assert run_out(begun((10, 9), (10, 4))) == [3, 5]


class Unsure(Policy):
    """Promises nothing of what follows a run."""

    eager = False


def test_a_long_prompt_goes_on_to_its_end() -> None:
    assert run_out(begun((64 * 4 + 10, 1))) == [4]
    assert run_out(begun((64 * 4, 1))) == [3]


def test_under_a_policy_that_promises_nothing_the_last_chunk_is_apart() -> None:
    assert run_out(begun((64 * 4 + 10, 1), policy=Unsure())) == [3, 1]
    assert run_out(begun((64 * 4, 1), policy=Unsure())) == [2, 1]


def test_the_last_chunk_is_apart_if_somebody_waits_for_what_it_leaves() -> None:
    replica = begun((64 * 4 + 10, 1), (3, 1))
    assert run_out(replica) == [3, 1]


def test_a_run_that_is_ended_early_computes_none_of_its_closing_iteration() -> None:
    replica = begun((64 * 4 + 10, 2))
    run = next_run(replica)
    assert (replica.lasting(run), run.alike) == (4, 3)
    assert replica.finish(run, 3).first == ()
    assert [sequence.missing for sequence in replica.running] == [10]


def test_one_token_that_is_computed_again_is_no_closing_chunk() -> None:
    replica = Replica(Limits(step_tokens=4), Policy())
    sequence = Sequence("again", 8, 9, sampled=1)
    replica.add(sequence)
    assert run_out(replica)[:2] == [2, 1]


def test_a_full_cache_ends_a_run_before_somebody_is_preempted() -> None:
    replica = begun((8, 40), (8, 40), kv_blocks=12)
    assert next_lasts(replica) == 16  # both may grow from 8 to 24 tokens, in 6 blocks each


def test_a_run_may_end_with_a_block_that_is_full_to_the_brim() -> None:
    replica = begun((7, 30), kv_blocks=10)
    counts = run_out(replica)
    assert sum(counts) == 29
    assert replica.preemptions == 0


def test_an_unsteady_policy_decides_every_iteration_anew() -> None:
    class Moody(Policy):
        steady = False  # so it does not matter that it is eager

    replica = Replica(Limits(step_tokens=4), Moody())
    replica.add(Sequence("a", 10, 9))
    assert run_out(replica) == [1] * 11


def test_a_plan_that_preempts_stands_for_itself_only() -> None:
    replica = begun((8, 40), (8, 40), kv_blocks=12)
    run = next_run(replica)
    replica.finish(run, replica.lasting(run))
    assert (next_lasts(replica), replica.preemptions) == (1, 1)


def test_in_the_middle_of_a_run_sequences_hold_the_blocks_that_they_have_filled_by_then() -> None:
    replica = begun((10, 9), (10, 9))
    run = next_run(replica)
    assert replica.lasting(run) == 8
    # 10 tokens are computed, in 3 blocks of 4: the third iteration needs a fourth block, the seventh a fifth.
    assert [replica.taken_tokens(run, count) for count in range(2, 9)] == [
        4 * n for n in (0, 2, 2, 2, 2, 4, 4)
    ]


def test_a_run_may_take_the_very_last_blocks() -> None:
    # Both have 3 blocks of 4 tokens and need 2 more each: 10 in all.
    assert next_lasts(begun((10, 9), (10, 9), kv_blocks=10)) == 8
    assert next_lasts(begun((10, 9), (10, 9), kv_blocks=9)) < 8


def beside_a_prompt() -> Replica:
    """A decode that soon needs a block, beside a prompt one of whose blocks is known from before."""
    replica = Replica(Limits(step_tokens=5, kv_blocks=6, block_tokens=4), Policy())
    pool = replica.batch.pool
    known = Table()
    assert pool.acquire(known, [], 1)
    pool.publish(known, [102], 0, 1)
    pool.release(known)
    replica.add(Sequence("decodes", 2, 9))
    replica.finish(next_run(replica), 1)
    replica.add(Sequence("prompt", 16, 1, blocks=[101, 102, 103, 104]))
    return replica


def test_a_run_that_publishes_forgets_nothing() -> None:
    stepped, leapt = beside_a_prompt(), beside_a_prompt()
    for _ in range(3):
        stepped.finish(next_run(stepped), 1)
    counts: list[int] = []
    while sum(counts) < 3:
        run = next_run(leapt)
        counts.append(min(leapt.lasting(run), 3 - sum(counts)))
        leapt.finish(run, counts[-1])
    assert counts == [2, 1]
    for replica in (stepped, leapt):
        assert [replica.batch.pool.matched([name]) for name in (101, 102, 103)] == [1, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_prompt_that_is_aborted_in_a_run_has_published_all_but_its_last_chunk(count: int) -> None:
    replica = Replica(Limits(step_tokens=4, kv_blocks=8, block_tokens=4), Policy())
    replica.add(Sequence("a", 16, 1, blocks=[1, 2, 3, 4]))
    run = next_run(replica)
    assert replica.lasting(run) == 4
    replica.abort("a")
    assert replica.finish(run, count).ended == ()
    assert replica.batch.pool.matched([1, 2, 3, 4]) == count - 1
    assert replica.kv_free_tokens == 8 * 4


def test_who_is_aborted_while_prompts_go_first_gives_back_the_block_it_was_to_fill() -> None:
    replica = Replica(Limits(step_tokens=8, kv_blocks=8, block_tokens=4), prefill_first.Policy())
    replica.add(Sequence("decodes", 4, 9))
    replica.finish(next_run(replica), 1)
    replica.add(Sequence("prompt", 5, 9))
    replica.finish(next_run(replica), 1)
    assert replica.kv_free_tokens == (8 - 2 - 2) * 4
    replica.abort("decodes")
    assert replica.kv_free_tokens == (8 - 2) * 4

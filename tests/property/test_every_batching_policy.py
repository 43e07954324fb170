"""What holds for every batching policy that ships, whatever the batch looks like."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.batch import BatchingPolicy, BatchView, Plan, informed
from millrace.core.replica import Limits
from millrace.policies import load
from millrace.replica.batch import Batch
from millrace.replica.executor import StepResult
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from tests.property.test_world import Affine
from tests.property.whole import BATCHINGS

POLICIES = [load("batching", text) for text in BATCHINGS]
PREDICTING = [informed(one, Affine()) for one in POLICIES if hasattr(one, "informed")]
every_policy = pytest.mark.parametrize("policy", POLICIES + PREDICTING)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A batch in the middle of its work: some run, some wait, some find their prompts in the cache."""
    limits = Limits(
        step_tokens=draw(st.integers(1, 40)),
        sequences=draw(st.integers(1, 6)),
        kv_blocks=draw(st.integers(8, 24)),
        block_tokens=4,
    )
    replica = Replica(limits, informed(load("batching", draw(st.sampled_from(BATCHINGS))), Affine()))
    for i in range(draw(st.integers(0, 10))):
        prompt_tokens = draw(st.integers(1, 20))
        forks = draw(st.integers(32, 63))
        blocks = [forks >> 4 - k for k in range(prompt_tokens // 4)]
        priority = draw(st.sampled_from([0, 0, -1, 1]))
        replica.add(Sequence(f"s{i}", prompt_tokens, max_tokens=12, blocks=blocks, priority=priority))
        if draw(st.booleans()) and (step := replica.plan()):
            replica.commit(step, StepResult(1.0))
    replica.batch.make_room()
    return replica.batch


def snapshot(batch: Batch) -> object:
    """Everything a policy could have changed."""
    sequences = [
        (s.id, s.length, s.computed, s.published, list(s.table), list(s.blocks)) for s in batch.known.values()
    ]
    parts = (batch.queue, batch.running, batch.prefilling, batch.decodes.members)
    order = [[sequence.id for sequence in part] for part in parts]
    decodes, pool = batch.decodes, batch.pool
    return deepcopy((sequences, order, decodes.spare, decodes.stock, pool.free, pool.findable, pool.eased))


def tokens(plan: Plan) -> int:
    """What the plan computes."""
    return plan.decodes + sum(grant.tokens for grant in plan.grants)


@every_policy
@given(batch=batches())
def test_grants_stay_within_what_a_step_holds(policy: BatchingPolicy, batch: Batch) -> None:
    plan = policy.plan(batch)
    granted = {grant.id for grant in plan.grants}
    assert len(granted) == len(plan.grants)
    assert all(grant.tokens >= 1 for grant in plan.grants)
    assert tokens(plan) <= batch.step_tokens
    assert plan.decodes <= batch.decoding
    running = {sequence.id for sequence in batch.running}
    assert granted <= running | {sequence.id for sequence in batch.waiting}
    assert granted.isdisjoint(plan.yields)
    assert running.issuperset(plan.yields)
    assert len(granted | running) - len(plan.yields) <= batch.sequences


@every_policy
@given(batch=batches())
def test_nobody_is_granted_more_than_is_missing(policy: BatchingPolicy, batch: BatchView) -> None:
    missing = {sequence.id: sequence.missing for sequence in batch.running}
    missing |= {sequence.id: batch.missing_tokens(sequence) for sequence in batch.waiting}
    assert all(grant.tokens <= missing[grant.id] for grant in policy.plan(batch).grants)


@every_policy
@given(batch=batches())
def test_the_same_batch_gets_the_same_grants_and_is_left_as_it_was(
    policy: BatchingPolicy, batch: Batch
) -> None:
    before = snapshot(batch)
    first, second = policy.plan(batch), policy.plan(batch)
    assert first == second
    assert snapshot(batch) == before


@every_policy
@given(batch=batches())
def test_a_batch_with_work_is_never_left_idle(policy: BatchingPolicy, batch: Batch) -> None:
    assert bool(tokens(policy.plan(batch))) == bool(batch.running or batch.waiting)


@given(batch=batches())
def test_split_fuse_fills_its_budget_exactly_as_long_as_there_is_anything_to_compute(batch: Batch) -> None:
    plan = load("batching", "split_fuse").plan(batch)
    seats = batch.sequences - len(batch.running)
    wanted = batch.decoding + sum(sequence.missing for sequence in batch.prefilling)
    wanted += sum(batch.missing_tokens(sequence) for sequence in list(batch.waiting)[:seats])
    assert tokens(plan) == min(batch.step_tokens, wanted)

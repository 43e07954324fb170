"""Who is swapped out meets who is aborted, who comes from elsewhere, and who lacks a block."""

from __future__ import annotations

import pytest

from millrace.core.replica import Limits
from millrace.core.swapping import Swapping
from millrace.policies import load
from millrace.replica.host import HostTier
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from tests.property.test_swapping import Host

FREE = Swapping(host_blocks=40, block_s=0.0, token_s=1.0, preempting=True)


def displaced(blocks: int = 12, seats: int = 1) -> Host:
    """A world in which an urgent sequence has taken the place of another, which is not gone yet."""
    made = Host(Limits(kv_blocks=blocks, block_tokens=2, sequences=seats, prefix_caching=False), FREE)
    made.add([1] * 4, 8, 0)
    made.step()
    for _ in range(seats):
        made.add([0] * 3, 6, 1)
    made.step()
    return made


def fetched() -> Host:
    """The urgent one has ended, and the other is on its way back."""
    made = displaced()
    while not made.batch.incoming:
        made.step()
    return made


def test_blocks_of_who_is_aborted_on_its_way_are_held_until_the_copy_is_done() -> None:
    made = fetched()
    assert made.replica.abort("s0")
    made.nobody_lacks_anything()
    assert made.replica.kv_free_tokens < 24
    made.arrive(2)
    assert made.replica.kv_free_tokens == 24


def test_a_step_that_lacks_blocks_waits_for_those_that_are_leaving() -> None:
    made = displaced(blocks=8, seats=2)
    made.step()
    assert made.batch.leaving
    waited = False
    while made.batch.leaving:
        before = made.replica.plan()
        waited = made.batch.waiting_for_swaps
        made.under_way += made.batch.asked()
        if waited:
            break
        assert before is not None
        made.replica.commit(before, made.engine.run(before))
        for chunk in before.chunks:
            made.engine.sample(chunk.sequence)
    assert waited
    assert not made.batch.leaving


def test_who_has_come_back_waits_for_a_seat_that_another_took() -> None:
    made = fetched()
    made.add([0] * 2, 4, 0)
    made.step()
    made.arrive(2)
    made.step()
    assert [one.id for one in made.batch.imports.landed] == ["s0"]
    made.nobody_lacks_anything()
    while made.step() or made.under_way:
        made.arrive(1)
    assert not made.batch.known


def test_a_sequence_from_another_replica_joins_beside_those_that_swap() -> None:
    made = Host(Limits(kv_blocks=12, block_tokens=2, prefix_caching=False), FREE)
    made.replica.expect(Sequence("guest", 4, 2))
    made.step()
    made.replica.land("guest")
    assert made.replica.plan() is not None
    assert [one.id for one in made.batch.running] == ["guest"]


def test_a_host_copy_grows_where_it_is_and_only_as_many_make_room_as_it_takes() -> None:
    tier = HostTier(6)
    first, second, third = (Sequence(name, 4, 1) for name in "abc")
    for one in (first, second, third):
        assert tier.reserve(one, 2)
    copy = tier.reserve(third, 2)
    assert copy
    assert len(copy.blocks) == 2
    assert tier.reserve(third, 3) is copy
    assert [*tier.copies] == [second, third]
    copy.needed = True
    assert tier.reserve(second, 4) is None
    tier.audit()


def test_adapters_and_swaps_are_not_limited_together() -> None:
    with pytest.raises(ValueError, match="leave out one of the two"):
        Replica(Limits(adapters=1), load("batching", "split_fuse"), swap=FREE)


@pytest.mark.parametrize(("block_s", "token_s"), [(1.0, 0.01), (None, 1.0), (1.0, None)])
def test_who_is_sooner_computed_again_than_copied_or_may_be_is_computed_again(
    block_s: float | None, token_s: float | None
) -> None:
    swapping = Swapping(host_blocks=40, block_s=block_s, token_s=token_s, preempting=True)
    made = Host(Limits(kv_blocks=12, block_tokens=2, sequences=1), swapping)
    made.add([1] * 4, 8, 0)
    made.step()
    made.add([0] * 3, 6, 1)
    while made.step():
        pass
    assert not made.batch.known
    assert (made.batch.counts.swapped, made.batch.counts.recomputed) == (0, 1)


def test_swaps_that_are_not_overlapped_are_waited_for_by_the_very_next_step() -> None:
    swapping = Swapping(host_blocks=40, block_s=0.0, token_s=1.0, overlapped=False, preempting=True)
    made = Host(
        Limits(step_tokens=2, kv_blocks=12, block_tokens=2, sequences=1, prefix_caching=False), swapping
    )
    made.add([1] * 4, 8, 0)
    made.step()
    made.add([0] * 3, 6, 1)
    while made.step():
        assert not made.under_way
    assert not made.batch.known
    assert made.batch.counts.in_blocks > 0


def test_a_priority_changes_while_a_sequence_runs_and_while_it_waits() -> None:
    made = Host(Limits(kv_blocks=12, block_tokens=2, sequences=1), FREE)
    for _ in range(3):
        made.add([1] * 4, 8, 1)
        made.step()
    assert made.batch.prioritise("s0", 2)
    assert made.batch.prioritise("s2", 2)
    assert [one.id for one in made.batch.queue] == ["s2", "s1"]
    assert not made.batch.prioritise("nobody", 2)
    made.step()
    assert [one.id for one in made.batch.running] == ["s0"], "equals do not give way"

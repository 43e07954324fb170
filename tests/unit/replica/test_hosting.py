"""Sequences that go on elsewhere: stopped between two steps, hosted in blocks of another replica, or not."""

from __future__ import annotations

from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from tests.unit.replica.test_imports import Instant, replica


def decoding(
    made: Replica, steps: Instant, name: str, *, prompt: int, tokens: int, more: int = 20
) -> Sequence:
    """Let a sequence come so far that it has this many tokens, and return it."""
    sequence = Sequence(name, prompt, tokens + more)
    made.add(sequence)
    while sequence.generated < tokens:
        assert made.step(steps)
    return sequence


def guest_of(sequence: Sequence) -> Sequence:
    return Sequence(sequence.id, sequence.prompt_tokens, sequence.max_tokens, sampled=sequence.generated)


def hosted(made: Replica) -> list[tuple[str, int | None]]:
    return [(sequence.id, tokens) for sequence, tokens in made.batch.hosted()]


def test_a_sequence_goes_on_where_the_other_replica_left_it() -> None:
    source, target, steps, others = replica(), replica(), Instant(), Instant()
    sequence = decoding(source, steps, "q", prompt=40, tokens=5, more=3)
    guest = guest_of(sequence)
    target.batch.host(guest)
    assert target.step(others) is None
    assert hosted(target) == [("q", 0)]
    assert source.batch.set_aside(sequence)
    assert source.step(steps) is None
    target.land("q")
    source.abort("q")
    while target.step(others):
        pass
    assert (guest.generated, others.tokens) == (8, [1, 1, 1])
    for made in (source, target):
        made.batch.pool.audit([])


def test_a_block_more_is_taken_as_the_sequence_grows_and_given_back_if_it_was_not_needed() -> None:
    target, steps = replica(), Instant()
    guest = Sequence("q", 40, 9, sampled=2)
    target.batch.host(guest)
    target.step(steps)
    assert len(guest.table) == 4
    guest.sampled = 7
    target.batch.host(guest)
    target.step(steps)
    assert hosted(target) == [("q", 0), ("q", 0)]
    target.land("q")
    target.step(steps)
    assert len(guest.table) == 3
    while target.step(steps):
        pass
    target.batch.pool.audit([])


def test_what_the_prefix_cache_holds_need_not_come() -> None:
    target, steps = replica(), Instant()
    target.add(Sequence("before", 40, 1, [1, 2]))
    target.step(steps)
    target.batch.host(Sequence("q", 40, 9, [1, 2], sampled=2))
    target.step(steps)
    assert hosted(target) == [("q", 32)]


def test_a_replica_without_room_says_so_and_forgets() -> None:
    target, steps = replica(kv_blocks=5), Instant()
    sequence = decoding(target, steps, "own", prompt=30, tokens=2)
    target.batch.host(Sequence("q", 40, 9, sampled=2))
    target.step(steps)
    assert hosted(target) == [("q", None)]
    assert not target.abort("q")
    target.batch.host(small := Sequence("small", 10, 9, sampled=2))
    target.step(steps)
    assert hosted(target) == [("small", 0)]
    small.sampled = 9
    target.batch.host(small)
    target.step(steps)
    assert hosted(target) == [("small", None)]
    assert target.abort("small")
    assert target.abort(sequence.id)
    target.batch.pool.audit([])


def test_a_guest_may_be_forgotten_before_it_was_looked_at() -> None:
    target, steps = replica(), Instant()
    target.batch.host(Sequence("q", 40, 9, sampled=2))
    assert target.abort("q")
    assert target.step(steps) is None
    assert hosted(target) == []
    target.batch.pool.audit([])


def test_who_was_set_aside_goes_on_here_as_soon_as_it_may() -> None:
    source, steps = replica(), Instant()
    sequence = decoding(source, steps, "q", prompt=12, tokens=5, more=4)
    assert sequence.computed == 16  # so the next token needs another block
    assert source.batch.set_aside(sequence)
    assert len(sequence.table) == 2
    source.land("q")
    while source.step(steps):
        pass
    assert sequence.generated == 9
    source.batch.pool.audit([])


def test_nobody_is_set_aside_without_a_block_to_go_on_with() -> None:
    source, steps = replica(kv_blocks=3), Instant()
    sequence = decoding(source, steps, "q", prompt=40, tokens=2, more=2)
    assert not source.batch.set_aside(sequence)
    while source.step(steps):
        pass
    assert sequence.generated == 4


def test_who_is_set_aside_lets_go_of_its_adapter() -> None:
    source, steps = replica(adapters=1), Instant()
    sequence = Sequence("q", 40, 9, adapter="a")
    source.add(sequence)
    source.add(Sequence("next", 20, 2, adapter="b"))
    source.step(steps)
    assert [one.id for one in source.running] == ["q"]
    assert source.batch.set_aside(sequence)
    source.step(steps)
    assert [one.id for one in source.running] == ["next"]
    source.land("q")
    while source.step(steps):
        pass
    assert sequence.generated == 9
    source.batch.pool.audit([])


def test_a_full_replica_with_adapters_sets_nobody_aside() -> None:
    source, steps = replica(adapters=1, kv_blocks=3), Instant()
    sequence = decoding(source, steps, "q", prompt=40, tokens=2, more=2)
    assert not source.batch.set_aside(sequence)

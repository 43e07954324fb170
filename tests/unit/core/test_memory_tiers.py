"""Moving bytes between tiers takes what the link says, and what was used last stays near."""

from __future__ import annotations

import pytest

from millrace.core.memory_tiers import Residency, Tier, striped

DDR = Tier(name="DDR", capacity_bytes=1000, bytes_per_s=10, latency_s=0.5, source="made up")


def test_moving_takes_latency_and_bytes_over_bandwidth() -> None:
    assert DDR.move_s(20) == 2.5
    assert DDR.move_s(0) == 0


def test_two_cards_side_by_side_hold_and_move_twice_as_much() -> None:
    both = striped([DDR, DDR])
    assert (both.capacity_bytes, both.bytes_per_s, both.latency_s) == (2000, 20, 0.5)
    assert both.name == "2x DDR"
    assert striped([DDR]).move_s(20) == DDR.move_s(20)


def test_only_equal_tiers_can_be_striped() -> None:
    other = Tier(name="slow", capacity_bytes=1000, bytes_per_s=5, source="made up")
    with pytest.raises(ValueError, match="differ in capacity or speed"):
        striped([DDR, other])
    with pytest.raises(ValueError, match="tiers is empty"):
        striped([])


def test_a_resident_model_is_there_at_once_and_another_after_moving() -> None:
    near = Residency(100, DDR)
    assert near.use("a", 50) == DDR.move_s(50)
    assert near.use("a", 50) == 0
    assert (near.requests, near.misses, near.miss_ratio) == (2, 1, 0.5)
    assert near.moved_s == DDR.move_s(50)


def test_what_was_used_longest_ago_makes_room() -> None:
    near = Residency(100, DDR)
    for name in ("a", "b", "a", "c"):
        near.use(name, 50)
    assert near.use("a", 50) == 0
    assert near.use("b", 50) > 0


def test_a_large_model_makes_several_leave() -> None:
    near = Residency(100, DDR)
    for name in ("a", "b", "c"):
        near.use(name, 30)
    near.use("large", 90)
    assert near.use("c", 30) > 0


def test_a_model_larger_than_the_near_tier_is_refused() -> None:
    near = Residency(100, DDR)
    assert near.miss_ratio == 0
    with pytest.raises(ValueError, match="huge takes 101 bytes and the near tier has 100"):
        near.use("huge", 101)

"""A ring gives each its share of keys, and moves no more than that when somebody comes or goes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.ring import Ring, ring_of

ids = st.lists(st.sampled_from([f"r{n}" for n in range(12)]), min_size=1, max_size=8, unique=True)
seeds = st.integers(0, 5)
virtual = st.integers(1, 20)
KEYS = range(60)


def test_the_same_key_has_the_same_owner_in_every_version() -> None:
    ring = Ring(["a", "b", "c"])
    assert [ring.owner(key) for key in ("x", "y", "z", 7)] == ["b", "a", "b", "c"]


@given(ids=ids, seed=seeds, virtual_nodes=virtual)
def test_the_order_of_ids_does_not_matter(ids: list[str], seed: int, virtual_nodes: int) -> None:
    ring, other = Ring(ids, virtual_nodes, seed), Ring(ids[::-1], virtual_nodes, seed)
    assert [list(ring.walk(key)) for key in KEYS] == [list(other.walk(key)) for key in KEYS]


@given(ids=ids, seed=seeds, virtual_nodes=virtual)
def test_a_walk_meets_everybody_once_and_the_owner_first(
    ids: list[str], seed: int, virtual_nodes: int
) -> None:
    ring = Ring(ids, virtual_nodes, seed)
    for key in KEYS:
        walk = list(ring.walk(key))
        assert walk[0] == ring.owner(key)
        assert sorted(walk) == sorted(ids)


@given(ids=ids, seed=seeds, virtual_nodes=virtual, left=st.integers(0, 7))
def test_without_one_the_walk_is_the_same_without_it(
    ids: list[str], seed: int, virtual_nodes: int, left: int
) -> None:
    gone = ids[left % len(ids)]
    rest = [one for one in ids if one != gone] or ["x"]
    before, after = Ring({*rest, gone}, virtual_nodes, seed), Ring(rest, virtual_nodes, seed)
    for key in KEYS:
        assert [one for one in before.walk(key) if one != gone] == list(after.walk(key))


@pytest.mark.parametrize("replicas", [4, 16, 64])
def test_one_that_joins_takes_about_its_share_and_nobody_else_gains(replicas: int) -> None:
    names = [f"r{n}" for n in range(replicas)]
    before, after = Ring(names), Ring([*names, "new"])
    moved = [after.owner(key) for key in range(4000) if before.owner(key) != after.owner(key)]
    share = 4000 / (replicas + 1)
    assert set(moved) == {"new"}
    assert 0.7 * share < len(moved) < 1.3 * share


def test_everybody_owns_about_as_much() -> None:
    ring = Ring([f"r{n}" for n in range(8)])
    owned = Counter(ring.owner(key) for key in range(8000))
    assert all(750 < number < 1300 for number in owned.values())
    assert len(owned) == 8


def test_rings_of_other_seeds_are_independent() -> None:
    names = [f"r{n}" for n in range(10)]
    one, other = Ring(names, seed=1), Ring(names, seed=2)
    alike = sum(one.owner(key) == other.owner(key) for key in range(2000))
    assert 140 < alike < 260  # one in ten


def test_a_ring_is_made_once() -> None:
    assert ring_of(("a", "b"), 10, 1) is ring_of(("a", "b"), 10, 1)
    assert list(islice(ring_of(("b", "a")).walk("x"), 1)) == ["b"]


def test_a_ring_of_nobody_and_one_without_places_are_refused() -> None:
    with pytest.raises(ValueError, match="ids are none"):
        Ring([])
    with pytest.raises(ValueError, match="virtual_nodes is 0"):
        Ring(["a"], 0)

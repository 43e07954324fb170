"""The prefix tree: what is matched, who holds it, what is forgotten, and what memory it takes."""

from __future__ import annotations

import tracemalloc

import pytest

from millrace.core.draw import draw
from millrace.core.prefix_tree import BLOCK_BYTES, HOLDER_BYTES, NODE_BYTES, PrefixTree, deepest
from millrace.core.request import Request
from millrace.testing import fakes


def _prompt(*blocks: int, block_tokens: int = 16) -> Request:
    return fakes.request(blocks=blocks, block_tokens=block_tokens)


def _matched(tree: PrefixTree, *blocks: int) -> list[tuple[int, list[str]]]:
    return [(size, list(holders)) for size, holders in tree.match(blocks)]


def test_an_empty_tree_matches_nothing() -> None:
    assert _matched(PrefixTree(1 << 20), 1, 2, 3) == []


def test_a_prompt_without_blocks_is_neither_kept_nor_matched() -> None:
    tree = PrefixTree(1 << 20)
    assert tree.insert(_prompt(), "a", 0.0) is None
    assert _matched(tree) == []
    assert (tree.holders(), tree.held_bytes) == ([], 0)


def test_what_is_shared_is_held_by_both_and_the_rest_by_one() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2, 3, 4), "a", 0.0)
    tree.insert(_prompt(1, 2, 5), "b", 0.0)
    assert _matched(tree, 1, 2, 3, 4, 9) == [(2, ["a", "b"]), (4, ["a"])]
    assert _matched(tree, 1, 2, 5) == [(2, ["a", "b"]), (3, ["b"])]
    assert _matched(tree, 1, 2, 9) == [(2, ["a", "b"])]


def test_a_prompt_that_ends_or_leaves_within_a_node_matches_that_far() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(*range(100)), "a", 0.0)
    for size in range(1, 101):
        assert _matched(tree, *range(size)) == [(size, ["a"])]
        assert _matched(tree, *range(size), 999) == [(size, ["a"])]


def test_the_replica_that_was_sent_it_last_is_the_last_of_its_holders() -> None:
    tree = PrefixTree(1 << 20)
    for name in ("a", "b", "c", "a"):
        tree.insert(_prompt(1, 2), name, 0.0)
    assert _matched(tree, 1, 2) == [(2, ["b", "c", "a"])]
    tree.insert(_prompt(1, 3), "b", 0.0)
    assert _matched(tree, 1, 2) == [(1, ["c", "a", "b"]), (2, ["b", "c", "a"])]


def test_sizes_are_counted_once_for_each_holder() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2, 3), "a", 0.0)
    tree.insert(_prompt(1, 2, 4), "a", 0.0)
    tree.insert(_prompt(1), "b", 0.0)
    assert (tree.tokens_of("a"), tree.tokens_of("b"), tree.tokens_of("c")) == (64, 16, 0)
    assert tree.blocks == 4
    assert tree.held_bytes == 4 * NODE_BYTES + 4 * BLOCK_BYTES + 5 * HOLDER_BYTES


def test_blocks_of_another_size_are_counted_as_what_they_are() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2, 3, block_tokens=100), "a", 0.0)
    tree.insert(_prompt(1, 5, block_tokens=100), "b", 0.0)
    assert (tree.tokens_of("a"), tree.tokens_of("b")) == (300, 200)


def test_the_deepest_of_those_asked_about_are_named_by_id() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2), "z", 0.0)
    tree.insert(_prompt(1, 2), "b", 0.0)
    tree.insert(_prompt(1, 2, 3), "gone", 0.0)
    levels = tree.match((1, 2, 3))
    assert deepest(levels, {"b", "z"}) == (2, ["b", "z"])
    assert deepest(levels, {"gone"}) == (3, ["gone"])
    assert deepest(levels, {"other"}) == (0, [])
    assert deepest([], {"b"}) == (0, [])


def test_a_replica_that_is_forgotten_takes_with_it_only_what_nobody_else_holds() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2, 3), "a", 0.0)
    tree.insert(_prompt(1, 2), "b", 0.0)
    tree.forget("a")
    tree.forget("unknown")
    assert _matched(tree, 1, 2, 3) == [(2, ["b"])]
    assert (tree.blocks, tree.holders()) == (2, ["b"])


def test_a_holder_forgets_what_it_was_sent_longest_ago_ends_first() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2), "a", 0.0)
    tree.insert(_prompt(1, 3), "a", 1.0)
    tree.insert(_prompt(4, 5), "a", 2.0)
    tree.insert(_prompt(1, 2), "b", 3.0)  # is no use by "a"
    tree.trim("a", 64)
    assert _matched(tree, 1, 2) == [(1, ["a", "b"]), (2, ["b"])]
    tree.trim("a", 32)
    assert _matched(tree, 1, 3) == [(1, ["b"])]
    assert _matched(tree, 4, 5) == [(2, ["a"])]


def test_of_a_prompt_that_is_forgotten_in_part_the_end_goes_first() -> None:
    tree = PrefixTree(1 << 20)
    for blocks in ((1, 2, 3), (1,), (1, 2), (1, 2, 3)):
        tree.insert(_prompt(*blocks), "a", 0.0)
    for kept in (2, 1, 0):
        tree.trim("a", 16 * kept)
        assert _matched(tree, 1, 2, 3) == [(size, ["a"]) for size in range(1, kept + 1)]


def test_when_memory_is_full_what_nobody_used_for_longest_is_forgotten_by_all() -> None:
    tree = PrefixTree(2 * (NODE_BYTES + 2 * HOLDER_BYTES + BLOCK_BYTES))
    for name in ("a", "b"):
        tree.insert(_prompt(1), name, 0.0)
        tree.insert(_prompt(2), name, 0.0)
    tree.insert(_prompt(1), "a", 0.0)
    tree.insert(_prompt(3), "a", 0.0)
    assert [_matched(tree, n) for n in (1, 2, 3)] == [[(1, ["b", "a"])], [], [(1, ["a"])]]


def test_a_limit_on_blocks_holds_whatever_the_memory() -> None:
    tree = PrefixTree(1 << 20, most_blocks=5)
    tree.insert(_prompt(1, 2, 3), "a", 0.0)
    tree.insert(_prompt(4, 5, 6), "a", 0.0)
    assert (_matched(tree, 1, 2, 3), tree.blocks) == ([], 3)


def test_a_prompt_too_large_for_the_tree_is_not_kept() -> None:
    tree = PrefixTree(1000)
    tree.insert(_prompt(*range(100)), "a", 0.0)
    assert (_matched(tree, 0, 1), tree.held_bytes, tree.tokens_of("a")) == ([], 0, 0)


def test_what_was_last_used_before_a_moment_expires() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert(_prompt(1, 2), "a", 1.0)
    tree.insert(_prompt(1, 3), "b", 2.0)
    tree.expire(1.0)
    assert _matched(tree, 1, 2) == [(1, ["a", "b"]), (2, ["a"])]
    tree.expire(2.0)
    assert _matched(tree, 1, 2) == [(1, ["a", "b"])]
    tree.expire(2.5)
    assert (tree.blocks, tree.held_bytes) == (0, 0)


def test_hashes_that_are_no_chain_may_mislead_but_never_break_it() -> None:
    tree = PrefixTree(6000)
    for n in range(400):
        blocks = [draw(n, k) % 3 for k in range(draw(n) % 9)]
        tree.insert(_prompt(*blocks), f"r{n % 3}", float(n))
        tree.match(tuple(blocks[::-1]))
    for name in tree.holders():
        tree.forget(name)
    assert (tree.blocks, tree.held_bytes) == (0, 0)


def test_thousands_of_turns_of_one_conversation_are_no_deeper_than_python() -> None:
    tree = PrefixTree(1 << 30)
    for turns in range(1100, 0, -1):
        tree.insert(_prompt(*range(turns)), "a", 0.0)
    tree.forget("a")
    assert tree.held_bytes == 0


@pytest.mark.parametrize(("blocks", "holders"), [(100, 1), (1, 1), (1, 16), (10, 3)])
def test_the_memory_it_says_it_takes_is_what_it_takes(blocks: int, holders: int) -> None:
    tracemalloc.start()
    tree = PrefixTree(1 << 30)
    for n in range(300):
        prompt = _prompt(*(n << 40 | k << 20 for k in range(1, blocks + 1)))
        for holder in range(holders):
            tree.insert(prompt, f"r{(n + holder) % 20}", 0.0)
    del prompt
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.75 < taken_bytes / tree.held_bytes < 1.1

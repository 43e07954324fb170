"""The prefix index remembers what was sent as a chain, within a budget, and forgets the oldest first."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.control.prefixes import ENTRY_BYTES, SentPrefixes
from millrace.core.draw import draw
from millrace.core.request import Request
from millrace.testing import fakes


def _prompt(*blocks: int, prompt_tokens: int = 1000) -> Request:
    return fakes.request(blocks=blocks, prompt_tokens=prompt_tokens)


def _index(capacity: int, *sent: Request) -> SentPrefixes:
    made = SentPrefixes(capacity * ENTRY_BYTES)
    for request in sent:
        made.remember(request)
    return made


def test_a_prompt_matches_as_far_as_it_was_sent_before() -> None:
    index = _index(100, _prompt(1, 2, 3))
    assert index.matched_tokens(_prompt(1, 2, 3, 4)) == 48
    assert index.matched_tokens(_prompt(1, 2, 9)) == 32
    assert index.matched_tokens(_prompt(9, 2, 3)) == 0
    assert index.matched_tokens(_prompt()) == 0


def test_blocks_are_counted_in_tokens_of_the_request_and_never_beyond_its_prompt() -> None:
    index = _index(100, _prompt(1, 2, 3))
    assert index.matched_tokens(fakes.request(blocks=(1, 2), block_tokens=50, prompt_tokens=100)) == 100
    assert index.matched_tokens(_prompt(1, 2, prompt_tokens=20)) == 20


def test_the_oldest_prompt_is_forgotten_first() -> None:
    index = _index(4, _prompt(1, 2), _prompt(3, 4), _prompt(5, 6))
    assert [index.matched_tokens(_prompt(*p)) for p in ((1, 2), (3, 4), (5, 6))] == [0, 32, 32]


def test_a_prompt_that_is_sent_again_is_young_again() -> None:
    index = _index(4, _prompt(1, 2), _prompt(3, 4), _prompt(1, 2), _prompt(5, 6))
    assert [index.matched_tokens(_prompt(*p)) for p in ((1, 2), (3, 4), (5, 6))] == [32, 0, 32]


def test_a_prompt_loses_its_end_before_its_beginning() -> None:
    assert _index(4, _prompt(1, 2, 3), _prompt(4, 5)).matched_tokens(_prompt(1, 2, 3)) == 32


def test_of_a_prompt_larger_than_the_index_the_beginning_is_kept() -> None:
    index = _index(3, _prompt(*range(10)))
    assert index.matched_tokens(_prompt(*range(10))) == 48


def test_an_index_without_budget_keeps_one_block() -> None:
    index = SentPrefixes(0)
    index.remember(_prompt(1, 2))
    assert index.matched_tokens(_prompt(1, 2)) == 16


def test_a_forgotten_index_is_empty() -> None:
    index = _index(9, _prompt(1, 2, 3))
    assert index.held_bytes == 3 * ENTRY_BYTES
    index.forget()
    assert (index.held_bytes, index.matched_tokens(_prompt(1, 2, 3))) == (0, 0)


# A tree of prompts: each block's number contains its parent's, as a chained hash does.
prompts = st.lists(st.integers(1, 3), max_size=5).map(
    lambda path: _prompt(*(int("".join(map(str, path[: n + 1]))) for n in range(len(path))))
)


def _oldest_forgotten(sent: list[Request], capacity: int) -> list[int]:
    """The blocks that are left, oldest first, when each prompt is touched from its end to its beginning."""
    kept: list[int] = []
    for request in sent:
        for block in reversed(request.blocks[:capacity]):
            kept = [*(other for other in kept if other != block), block]
    return kept[-capacity:]


@given(sent=st.lists(prompts, max_size=20), asked=prompts, capacity=st.integers(1, 12))
def test_an_index_forgets_by_age_and_finds_as_far_as_a_walk_does(
    sent: list[Request], asked: Request, capacity: int
) -> None:
    index = _index(capacity, *sent)
    known = _oldest_forgotten(sent, capacity)
    assert index.held_bytes == len(known) * ENTRY_BYTES
    walked = sum(1 for _ in takewhile(known.__contains__, asked.blocks)) * asked.block_tokens
    assert index.matched_tokens(asked) == walked
    assert index.remember(asked) == walked


@given(sent=st.lists(prompts, max_size=20), asked=prompts, capacity=st.integers(1, 12))
def test_an_index_never_exceeds_its_budget_nor_claims_what_was_not_sent(
    sent: list[Request], asked: Request, capacity: int
) -> None:
    index = _index(capacity, *sent)
    assert index.held_bytes <= capacity * ENTRY_BYTES
    ever = {block for request in sent for block in request.blocks}
    possible = sum(1 for block in asked.blocks if block in ever) * asked.block_tokens
    assert index.matched_tokens(asked) <= possible
    if len(ever) <= capacity:
        assert index.matched_tokens(asked) == possible


@given(sent=st.lists(st.lists(st.integers(1, 4), max_size=5), max_size=20), capacity=st.integers(1, 6))
def test_an_index_keeps_to_its_budget_even_if_names_are_not_chained(
    sent: list[list[int]], capacity: int
) -> None:
    index = _index(capacity, *(_prompt(*blocks) for blocks in sent))
    assert 0 <= index.held_bytes <= capacity * ENTRY_BYTES


@pytest.mark.parametrize(("blocks", "least", "most"), [(1, 1.5, 2.5), (4, 0.5, 1.0), (50, 0.2, 0.6)])
def test_the_index_takes_less_memory_than_it_says_but_for_prompts_of_one_block(
    blocks: int, least: float, most: float
) -> None:
    index = SentPrefixes(1 << 30)
    gc.collect()
    tracemalloc.start()
    for n in range(400):
        index.remember(_prompt(*(draw(n, k) >> 1 for k in range(blocks))))
    gc.collect()
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert index.held_bytes == 400 * blocks * ENTRY_BYTES
    assert least * index.held_bytes < taken_bytes < most * index.held_bytes

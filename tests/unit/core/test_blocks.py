"""Block hashes chain: equal exactly as far as two prompts are equal."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.blocks import (
    chain_bytes,
    chain_contents,
    chain_tokens,
    contents_of,
    in_common,
    root_of,
)

tokens = st.lists(st.integers(0, 2), max_size=14)


def _shared(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@given(one=tokens, other=tokens, block_tokens=st.integers(1, 4))
def test_two_token_chains_are_equal_exactly_as_far_as_their_blocks(
    one: list[int], other: list[int], block_tokens: int
) -> None:
    first, second = chain_tokens(one, block_tokens), chain_tokens(other, block_tokens)
    assert len(first) == len(one) // block_tokens
    assert _shared(first, second) == _shared(one, other) // block_tokens


@given(one=tokens, other=tokens, before=st.integers(0, 3))
def test_chains_have_in_common_what_a_walk_finds(one: list[int], other: list[int], before: int) -> None:
    first, second = chain_tokens([7, *one], 1), chain_tokens([7, *other], 1)
    in_front = [-1 - n for n in range(before)]
    assert in_common(first, in_front + second, before) == _shared(first, second)


def test_a_chain_can_be_continued_from_its_last_block() -> None:
    prompt = list(range(64))
    whole = chain_tokens(prompt, 16)
    assert chain_tokens(prompt[32:], 16, parent=whole[1]) == whole[2:]


def test_the_same_block_after_another_prefix_is_another_block() -> None:
    assert chain_tokens([7, 8, 1, 2], 2)[1] != chain_tokens([9, 9, 1, 2], 2)[1]


@pytest.mark.parametrize("digest_bytes", [8, 16])
def test_hashes_of_tokens_have_the_asked_size(digest_bytes: int) -> None:
    hashes = chain_tokens(range(640), 16, digest_bytes=digest_bytes)
    assert max(hashes) < 1 << (8 * digest_bytes)
    assert max(hashes) > 1 << (8 * digest_bytes - 4)


@given(text=st.binary(max_size=40), cut=st.integers(0, 40), block_bytes=st.integers(1, 8))
def test_two_texts_share_the_hashes_of_their_common_blocks(text: bytes, cut: int, block_bytes: int) -> None:
    other = text[:cut] + b"~" * 8
    common = _shared(list(text), list(other)) // block_bytes
    first, second = chain_bytes(text, block_bytes), chain_bytes(other, block_bytes)
    assert len(first) == len(text) // block_bytes
    assert _shared(list(first), list(second)) == common


def test_hashes_of_text_stop_at_the_limit_and_fit_a_signed_64_bit_number() -> None:
    hashes = chain_bytes(b"a" * 1000, 10, limit=5)
    assert len(hashes) == 5
    assert hashes == chain_bytes(b"a" * 50, 10)
    assert all(0 <= found < 1 << 63 for found in hashes)


@given(one=tokens, other=tokens, block_tokens=st.integers(1, 4))
def test_two_chains_made_in_two_steps_are_equal_exactly_as_far_as_their_blocks(
    one: list[int], other: list[int], block_tokens: int
) -> None:
    first, second = (contents_of(tokens, block_tokens) for tokens in (one, other))
    assert len(first) == len(one) // block_tokens
    shared = _shared(list(chain_contents(first)), list(chain_contents(second)))
    assert shared == _shared(one, other) // block_tokens


def test_what_is_in_a_block_does_not_depend_on_what_is_in_front_of_it() -> None:
    assert contents_of([1, 2, 3, 4], 2)[1:] == contents_of([9, 9, 3, 4], 2)[1:] == contents_of([3, 4], 2)


def test_a_salt_sets_blocks_apart() -> None:
    assert contents_of([1, 2], 2) != contents_of([1, 2], 2, salt=b"tenant")


def test_every_adapter_has_chains_of_its_own() -> None:
    assert root_of("") == 0
    assert len({chain_contents((1,), root_of(name)) for name in ("", "poet", "lawyer")}) == 3

"""Prompt blocks of a trace, cut to an engine's block size."""

from __future__ import annotations

import pytest

from millrace.core.request import Request
from millrace.simulate import Job


def job(prompt_tokens: int, blocks: tuple[int, ...], block_tokens: int) -> Job:
    asked = Request(id="a", model="m", prompt_tokens=prompt_tokens, max_tokens=1)
    return Job(
        t_s=0.0,
        request=asked,
        prompt_tokens=prompt_tokens,
        output_tokens=1,
        blocks=blocks,
        block_tokens=block_tokens,
    )


def test_large_blocks_are_split_and_stay_distinct() -> None:
    one = job(1100, (7, 9), 512).engine_blocks(16)
    other = job(1100, (7, 10), 512).engine_blocks(16)
    assert len(one) == len(set(one)) == 64
    assert one[:32] == other[:32]
    assert not set(one[32:]) & set(other[32:])


def test_a_partial_last_block_gives_only_its_full_parts() -> None:
    assert len(job(520, (7, 9), 512).engine_blocks(16)) == 32


def test_small_blocks_are_joined_at_their_last_hash() -> None:
    assert job(64, (1, 2, 3, 4), 16).engine_blocks(32) == [2, 4]


def test_equal_blocks_stay_as_they_are() -> None:
    assert job(32, (1, 2), 16).engine_blocks(16) == [1, 2]


def test_blocks_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        job(100, (1, 2), 48).engine_blocks(32)


def test_no_blocks_stay_no_blocks() -> None:
    assert job(100, (), 48).engine_blocks(32) == []

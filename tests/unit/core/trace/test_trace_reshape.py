from __future__ import annotations

import pytest

from millrace.core.trace import TraceRecord, first, scale_lengths, scale_rate, window


def record(t_s: float = 0.0, **fields: object) -> TraceRecord:
    sizes = {"id": f"at-{t_s}", "input_tokens": 64, "output_tokens": 10}
    return TraceRecord(t_s=t_s, **(sizes | fields))  # type: ignore[arg-type]


TRACE = [record(t_s) for t_s in (0.0, 1.0, 2.5, 2.5, 9.0)]


def test_the_first_requests_can_be_kept() -> None:
    assert list(first(TRACE, 2)) == TRACE[:2]
    assert list(first(TRACE, 0)) == []
    assert list(first(TRACE, 99)) == TRACE


def test_a_window_begins_at_time_zero_and_leaves_out_its_end() -> None:
    assert [r.t_s for r in window(TRACE, 1.0, 9.0)] == [0.0, 1.5, 1.5]


def test_twice_the_rate_halves_every_gap() -> None:
    assert [r.t_s for r in scale_rate(TRACE, 2.0)] == [0.0, 0.5, 1.25, 1.25, 4.5]


def test_lengths_scale_but_never_to_nothing() -> None:
    (short,) = scale_lengths([record(max_tokens=20)], input_factor=0.001, output_factor=0.25)
    assert (short.input_tokens, short.output_tokens, short.max_tokens) == (1, 2, 5)
    (failed,) = scale_lengths([record(output_tokens=0, failed=True)], output_factor=9.0)
    assert (failed.output_tokens, failed.max_tokens) == (0, None)


def test_factors_of_one_change_nothing() -> None:
    whole = record(input_tokens=70, blocks=(3, 1, 4, 1), tail_block=5)
    assert list(scale_lengths([whole])) == [whole]


def test_shorter_prompts_share_the_same_share_of_their_blocks() -> None:
    ours, theirs = (record(input_tokens=128, blocks=(1, 2, 3, 4, end, 6, 7, 8)) for end in (50, 51))
    half = list(scale_lengths([ours, theirs], input_factor=0.5))
    assert [r.input_tokens for r in half] == [64, 64]
    assert [r.blocks for r in half] == [(2, 4, 6, 8), (2, 4, 6, 8)]
    third = next(scale_lengths([record(input_tokens=96, blocks=(1, 2, 3, 4, 5, 6))], input_factor=1 / 3))
    assert third.blocks == (3, 6)


def test_longer_prompts_get_blocks_of_their_own_under_the_old_ones() -> None:
    (found,) = scale_lengths([record(input_tokens=32, blocks=(7, 9), tail_block=1)], input_factor=2.5)
    assert found.input_tokens == 80
    assert found.tail_block is None
    assert found.blocks == (21, 22, 27, 28, 29)


def test_a_prompt_that_grows_by_its_partial_block_names_only_what_it_knows() -> None:
    (found,) = scale_lengths([record(input_tokens=47, blocks=(1, 2))], input_factor=2.0)
    assert (found.input_tokens, found.blocks) == (94, (2, 3, 4, 5))


def test_impossible_reshaping_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="count is -1; it must not be negative"):
        first(TRACE, -1)
    with pytest.raises(ValueError, match=r"end_s is 1.0; it must be after start_s, 1.0"):
        window(TRACE, 1.0, 1.0)
    with pytest.raises(ValueError, match="factor is 0; it must be a number above 0"):
        scale_rate(TRACE, 0)
    with pytest.raises(ValueError, match="input_factor is nan"):
        scale_lengths(TRACE, input_factor=float("nan"))
    with pytest.raises(ValueError, match="output_factor is inf"):
        scale_lengths(TRACE, output_factor=float("inf"))

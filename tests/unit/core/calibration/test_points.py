"""Which points a calibration measures."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.core.calibration import points


def test_every_kind_has_points_to_fit_to_and_others_that_are_held_out() -> None:
    found = Counter((one.kind, one.held_out) for one in points(2048))
    assert found.keys() == {
        (kind, held_out) for kind in ("prefill", "decode", "mixed") for held_out in (False, True)
    }
    assert min(found.values()) >= 3


def test_no_point_is_held_out_and_fitted() -> None:
    found = [(p.streams, p.context_tokens, p.prompt_tokens) for p in points(4096)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("context_tokens", [256, 1000, 131072])
def test_lengths_fit_into_the_longest_context(context_tokens: int) -> None:
    for one in points(context_tokens):
        assert max(one.context_tokens, one.prompt_tokens) <= context_tokens * 3 / 4
        assert one.streams * one.context_tokens <= context_tokens * 2


def test_a_context_too_short_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 256"):
        points(255)

"""Trace records as requests: exact lengths, shared prefixes, real arrivals, the same bytes every time."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from typing import Any

import pytest

from millrace.bench.prompts import Planned, Shape, shape
from millrace.core.blocks import chain_tokens
from millrace.core.trace import TraceRecord


def records(count: int = 200, **fields: Any) -> list[TraceRecord]:
    made = {"input_tokens": 1200, "output_tokens": 160, **fields}
    return [TraceRecord(id=f"r{i}", t_s=i / 4, **made) for i in range(count)]


def form(**fields: Any) -> Shape:
    return Shape(**{"model": "demo", "vocab_tokens": 4096, "prefix_min_tokens": 256, **fields})


def common(a: Planned, b: Planned) -> int:
    """How many leading tokens two prompts share."""
    return next((i for i, (x, y) in enumerate(zip(a.prompt, b.prompt, strict=True)) if x != y), len(a.prompt))


def test_a_body_is_what_a_completions_endpoint_takes() -> None:
    (planned,) = shape(records(1), form())
    assert json.loads(planned.body) == {
        "model": "demo",
        "prompt": list(planned.prompt),
        "max_tokens": planned.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(("recorded", "planned"), [(1200, 300), (1, 16), (40_000, 768)])
def test_prompt_lengths_are_divided_and_clamped(recorded: int, planned: int) -> None:
    (one,) = shape(records(1, input_tokens=recorded), form())
    assert len(one.prompt) == planned


@pytest.mark.parametrize(("recorded", "planned"), [(160, 20), (1, 2), (4000, 48)])
def test_answer_lengths_are_divided_and_clamped(recorded: int, planned: int) -> None:
    (one,) = shape(records(1, output_tokens=recorded), form())
    assert one.max_tokens == planned


def test_token_ids_stay_in_the_vocabulary_and_off_its_special_ones() -> None:
    ids = {
        token for one in shape(records(50), form(first_token=300, vocab_tokens=500)) for token in one.prompt
    }
    assert min(ids) == 300
    assert max(ids) == 499


def test_a_group_shares_its_prefix_and_nothing_else() -> None:
    everyone = sorted(shape(records(), form(shared_part=0.5)), key=lambda one: one.group)
    for _, members in groupby(everyone, key=lambda one: one.group):
        first, *rest = members
        assert all(150 <= common(first, other) < 155 for other in rest)  # a draw may agree by chance
    strangers = [next(m) for _, m in groupby(everyone, key=lambda one: one.group)]
    assert max(common(a, b) for a in strangers for b in strangers if a is not b) < 3


def test_popular_groups_get_most_requests() -> None:
    sizes = Counter(
        one.group for one in shape(records(2000), form(requests=2000, groups=4, input_divisor=60))
    )
    assert [group for group, _ in sizes.most_common()] == [0, 1, 2, 3]
    assert sizes[0] == pytest.approx(2000 / (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=0.1)


def test_without_skew_groups_are_alike() -> None:
    plans = shape(records(2000), form(requests=2000, groups=4, skew=0, input_divisor=60))
    assert all(400 < size < 600 for size in Counter(one.group for one in plans).values())


def test_the_window_is_cut_and_played_faster() -> None:
    plans = shape(records(), form(from_s=10, requests=3, speed=2))
    assert [one.id for one in plans] == ["r40", "r41", "r42"]
    assert [one.scheduled_s for one in plans] == [0, 0.125, 0.25]


def test_requests_that_failed_in_the_trace_are_not_planned() -> None:
    assert shape(records(3, failed=True), form()) == []


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    once, again, other = (shape(records(20), form(seed=seed)) for seed in (1, 1, 2))
    assert once == again
    assert all(a.prompt != b.prompt for a, b in zip(once, other, strict=True))


def test_a_request_does_not_change_with_its_neighbours() -> None:
    alone = shape(records()[7:8], form())
    assert alone == [one for one in shape(records(), form()) if one.id == "r7"]


def test_blocks_are_those_of_the_prompt() -> None:
    (one,) = shape(records(1), form())
    assert list(one.blocks) == chain_tokens(one.prompt, 16, digest_bytes=8)
    assert len(one.blocks) == 300 // 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speed": 0}, "speed is 0; it must be above 0"),
        ({"groups": 0}, "groups is 0"),
        ({"input_min_tokens": 800}, "input_min_tokens is 800; it must be 1 to input_max_tokens = 768"),
        ({"output_min_tokens": 0}, "output_min_tokens is 0"),
        ({"first_token": 4096}, "first_token is 4096; it must be below vocab_tokens"),
        ({"shared_part": 1.5}, "shared_part is 1.5"),
    ],
)
def test_a_bad_setting_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        form(**fields)

"""What was sent is believed to be there for a while, and no longer than that."""

from __future__ import annotations

import pytest

from millrace.control.aging import AgingPrefixes
from millrace.control.clock import Clock
from millrace.control.prefixes import ENTRY_BYTES
from millrace.testing import fakes

PROMPT = fakes.request(blocks=(1, 2, 3), prompt_tokens=1000)


@pytest.mark.parametrize(
    ("sent_s", "known_s", "gone_s"), [(0.0, 9.9, 10.0), (4.0, 9.9, 14.0), (6.0, 14.9, 15.0)]
)
def test_a_prompt_is_remembered_for_half_the_time_at_least(
    sent_s: float, known_s: float, gone_s: float
) -> None:
    clock = Clock()
    index = AgingPrefixes(100 * ENTRY_BYTES, clock=clock, ttl_s=10.0)
    clock.now_s = sent_s
    assert index.remember(PROMPT) == 0
    clock.now_s = known_s
    assert index.matched_tokens(PROMPT) == 48
    clock.now_s = gone_s
    assert index.matched_tokens(PROMPT) == 0


def test_a_prompt_that_is_sent_again_is_young_again() -> None:
    clock = Clock()
    index = AgingPrefixes(100 * ENTRY_BYTES, clock=clock, ttl_s=10.0)
    for clock.now_s in (0.0, 6.0, 12.0, 18.0):
        index.remember(PROMPT)
    assert index.matched_tokens(PROMPT) == 48
    assert index.matched_by_medium(PROMPT) == (48, 0, 0)
    assert index.held_bytes == 2 * 3 * ENTRY_BYTES


def test_after_a_long_silence_nothing_is_left() -> None:
    clock = Clock()
    index = AgingPrefixes(100 * ENTRY_BYTES, clock=clock, ttl_s=10.0)
    index.remember(PROMPT)
    clock.now_s = 1000.0
    assert index.matched_tokens(PROMPT) == index.held_bytes == 0


def test_a_replica_that_restarts_is_known_to_hold_nothing() -> None:
    index = AgingPrefixes(100 * ENTRY_BYTES, clock=Clock(), ttl_s=10.0)
    index.remember(PROMPT)
    index.forget()
    assert index.matched_tokens(PROMPT) == 0

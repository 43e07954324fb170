"""The guard caps whose answers run on, and nobody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.overflow import (
    MOST_GROUPS,
    MOST_NAMED,
    NAME_LIMIT,
    OTHERS,
    GuardSettings,
    OverflowGuard,
    Whose,
)
from millrace.core.overflow_words import parse_guard

CAPPING = GuardSettings(caps=True, evidence=4, remembered=8, floor_tokens=50)
LONG, SHORT = Whose("m", "long", "write"), Whose("m", "short", "ask")


def guard(
    settings: GuardSettings = CAPPING, *, short: int = 4, tokens: int = 100, long: int = 4
) -> OverflowGuard:
    """A guard that has seen answers of two tenants."""
    made = OverflowGuard(settings)
    for _ in range(short):
        made.see(SHORT, tokens, asked=None)
    for _ in range(long):
        made.see(LONG, 5000, asked=None)
    return made


def test_a_tenant_whose_answers_run_on_is_capped_by_what_is_usual() -> None:
    made = guard()
    assert made.cap_tokens(LONG, None) == made.cap_tokens(LONG, 4096) == 150
    assert made.cap_tokens(SHORT, None) is None
    assert made.cap_tokens(Whose("m", "new", "write"), None) is None
    assert guard(tokens=10).cap_tokens(LONG, None) == 50
    assert guard(short=3).cap_tokens(LONG, None) == 1000


def test_nobody_is_capped_without_evidence_or_above_what_it_asked_for() -> None:
    assert guard(long=3).cap_tokens(LONG, None) is None
    assert guard().cap_tokens(LONG, 150) is None
    assert guard().cap_tokens(LONG, 151) == 150
    assert guard(GuardSettings(evidence=4, remembered=8)).cap_tokens(LONG, None) is None


def test_only_the_class_of_prompts_is_capped_if_the_tenant_is_otherwise_brief() -> None:
    made = guard()
    for _ in range(8):
        made.see(Whose("m", "both", "ask"), 40, asked=None)
    for _ in range(4):
        made.see(Whose("m", "both", "list"), 5000, asked=None)
        made.see(Whose("m", "both", "ask"), 40, asked=None)
        made.see(Whose("m", "both", "ask"), 40, asked=None)
    assert made.cap_tokens(Whose("m", "both", "list"), None) == 60
    assert made.cap_tokens(Whose("m", "both", "ask"), None) is None


def test_evidence_outlasts_the_cap_and_goes_when_answers_are_brief_again() -> None:
    made = guard()
    for _ in range(20):
        cap = made.cap_tokens(LONG, 2000)
        assert cap == 150
        made.see(LONG, cap, asked=2000, cap=cap)
    for _ in range(7):
        made.see(LONG, 20, asked=2000, cap=150)
    assert not made.overflows(LONG)
    assert made.classes["m", "write"].saturation(5000) == 0


def test_tokens_beyond_what_is_usual_are_counted_for_the_tenant_and_the_class() -> None:
    made = guard()
    assert made.beyond == {("m", "long"): 4 * 4900}
    assert made.beyond_by_class == {("m", "write"): 4 * 4900}
    assert set(made.named()) == {("m", "long")}
    assert made.named()["m", "long"].overflows


def test_a_crowd_of_tenants_takes_bounded_memory() -> None:
    made = guard()
    for number in range(MOST_GROUPS + 10):
        made.see(Whose("m", f"{number:05}" + "x" * 10_000, "ask"), 5000, asked=None)
    assert len(made._groups) == MOST_GROUPS
    assert all(len(tenant) <= NAME_LIMIT for _, tenant, _ in made._groups)
    assert len({tenant for _, tenant in made.beyond}) == MOST_NAMED + 1
    assert made.beyond["m", OTHERS] > 0
    assert len(made._everybody["m"]) == 10 * CAPPING.remembered


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from(("ask", "list")),
            st.none() | st.integers(1, 6000),
            st.integers(1, 6000),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_a_cap_is_below_what_was_asked_and_comes_of_the_same_past(
    asked_for: list[tuple[str, str, int | None, int]], caps: bool
) -> None:
    settings = GuardSettings(caps=caps, evidence=2, remembered=4, share=0.3, floor_tokens=10)
    one, other = OverflowGuard(settings), OverflowGuard(settings)
    for tenant, prompts, asked, wanted in asked_for:
        whose = Whose("m", tenant, prompts)
        cap = one.cap_tokens(whose, asked)
        assert cap == other.cap_tokens(whose, asked)
        assert cap is None or (caps and cap >= 10 and (asked is None or cap < asked))
        tokens = min(x for x in (wanted, asked, cap) if x is not None)
        for each in (one, other):
            each.see(whose, tokens, asked=asked, cap=cap)


def test_words_make_settings() -> None:
    assert parse_guard("off") is None
    assert parse_guard("watch") == GuardSettings()
    words = "cap,remind,long=900,share=0.25,evidence=5,remembered=50,quantile=0.9,headroom=2,floor=64"
    assert parse_guard(words) == GuardSettings(
        caps=True,
        reminds=True,
        long_tokens=900,
        share=0.25,
        evidence=5,
        remembered=50,
        quantile=0.9,
        headroom=2.0,
        floor_tokens=64,
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("cpa", "did you mean"),
        ("cap,lng=3", "unknown number 'lng'"),
        ("cap,long=x", "cannot read 'long=x'"),
        ("cap,long=0", "long_tokens is 0"),
        ("cap,share=1.5", "share is 1.5"),
        ("cap,headroom=0.5", "headroom is 0.5"),
        ("cap,headroom=nan", "headroom is nan"),
        ("cap,remembered=3", "remembered is 3"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_guard(words)

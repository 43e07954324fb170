"""Settings of the controller that make no sense are refused by name."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest

from millrace.control import ControlSettings, RetryBudget


@pytest.mark.parametrize("name", ["max_attempts", "max_held", "prefix_index_bytes"])
def test_bounds_are_at_least_one(name: str) -> None:
    bound: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        ControlSettings(**bound)


@pytest.mark.parametrize("seconds", [-1.0, inf, nan])
def test_the_longest_hold_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"max_hold_s is {seconds}; it must be a number of seconds from 0"):
        ControlSettings(max_hold_s=seconds)


def test_settings_survive_a_log() -> None:
    budget = RetryBudget(ratio=0.5, reserve=4, floor_per_s=0.0)
    settings = ControlSettings(
        max_attempts=1, max_held=2, max_hold_s=0.0, prefix_index_bytes=3, retry_budget=budget
    )
    assert msgspec.json.decode(msgspec.json.encode(settings), type=ControlSettings) == settings


def test_a_log_without_a_retry_budget_was_written_without_one() -> None:
    assert b"retry_budget" not in msgspec.json.encode(ControlSettings())
    assert msgspec.json.decode(b"{}", type=ControlSettings).retry_budget is msgspec.UNSET


@pytest.mark.parametrize("name", ["ratio", "reserve", "floor_per_s"])
def test_a_retry_budget_is_of_finite_amounts_from_zero(name: str) -> None:
    for amount in (-1, inf, nan):
        wrong: dict[str, Any] = {name: amount}
        with pytest.raises(ValueError, match=f"{name} of a retry budget is {amount}; it must be from 0"):
            RetryBudget(**wrong)

"""Settings of the controller that make no sense are refused by name."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest

from millrace.control import ControlSettings


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
    settings = ControlSettings(max_attempts=1, max_held=2, max_hold_s=0.0, prefix_index_bytes=3)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=ControlSettings) == settings

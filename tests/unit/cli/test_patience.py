"""A simulated fleet is as patient as a served one, by the same options."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from millrace.cli import main, serve, simulate
from millrace.cli.patience import PATIENCE
from millrace.cli.simulating.scenario import Scenario
from millrace.control import ControlSettings, RetryBudget
from millrace.control.log import read_header

OPTIONS = ("max_attempts", "retry_ratio", "retry_reserve", "retry_floor", "max_held")


def test_a_simulated_fleet_is_as_patient_as_a_served_one() -> None:
    served, simulated = inspect.signature(serve.run), inspect.signature(simulate.run)
    for name in OPTIONS:
        assert served.parameters[name].default == simulated.parameters[name].default
        assert served.parameters[name].annotation == simulated.parameters[name].annotation
    assert served.parameters["max_hold"].default == simulated.parameters["max_hold_s"].default
    assert Scenario(trace="t", fleet="1x h100 llama-3-8b").patience == PATIENCE
    assert ControlSettings(retry_budget=RetryBudget()) == PATIENCE


def test_options_reach_the_simulated_controller(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ("--max-attempts", "2", "--retry-ratio", "0.5", "--retry-reserve", "7", "--retry-floor", "0")
    traffic = ("--trace", "azure_conv_2023", "--requests", "2", "--fleet", "1x h100 llama-3-8b")
    with pytest.raises(SystemExit):
        main(("simulate", *traffic, *words, "--max-held", "3", "--max-hold", "4", "--log", str(log)))
    budget = RetryBudget(ratio=0.5, reserve=7, floor_per_s=0)
    expected = ControlSettings(max_attempts=2, max_held=3, max_hold_s=4, retry_budget=budget)
    assert read_header(log.read_bytes().splitlines()[0]).settings == expected

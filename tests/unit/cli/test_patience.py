"""A simulated fleet is as patient as a served one, by the same options."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from millrace.cli import main, serve, simulate
from millrace.cli.patience import PATIENCE
from millrace.cli.simulating.scenario import Scenario
from millrace.cli.waiting import rules_of
from millrace.control import Band, ControlSettings, QueueSettings, RetryBudget, Saturation
from millrace.control.log import read_header

OPTIONS = ("max_attempts", "retry_ratio", "retry_reserve", "retry_floor", "max_held")


def test_a_simulated_fleet_is_as_patient_as_a_served_one() -> None:
    served, simulated = inspect.signature(serve.run), inspect.signature(simulate.run)
    for name in (*OPTIONS, "queue_rule"):
        assert served.parameters[name].default == simulated.parameters[name].default
        assert served.parameters[name].annotation == simulated.parameters[name].annotation
    assert served.parameters["max_hold"].default == simulated.parameters["max_hold_s"].default
    assert Scenario(trace="t", fleet="1x h100 llama-3-8b").patience == PATIENCE
    usual = ControlSettings(retry_budget=RetryBudget(), queue=QueueSettings(), prefix_knowledge="answers")
    assert usual == PATIENCE


def test_options_reach_the_simulated_controller(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rules = "starvation=inf,per_tenant=2,drop_late=slo,engine_queue=1,waiting=9,kv=0.5,stale=2"
    every = ("0:share=0.25,reserved=1", rules, "10:held=2,hold=1.5")
    waiting = [word for rule in every for word in ("--queue-rule", rule)]
    words = ("--max-attempts", "2", "--retry-ratio", "0.5", "--retry-reserve", "7", "--retry-floor", "0")
    bounds = ("--max-held", "3", "--max-hold", "4")
    traffic = ("--trace", "azure_conv_2023", "--requests", "2", "--fleet", "1x h100 llama-3-8b")
    with pytest.raises(SystemExit):
        main(("simulate", *traffic, *words, *waiting, *bounds, "--scrape", "1s", "--log", str(log)))
    budget = RetryBudget(ratio=0.5, reserve=7, floor_per_s=0)
    queue = QueueSettings(
        bands=(Band(priority=0, share=0.25, reserved=1), Band(priority=10, max_held=2, max_hold_s=1.5)),
        max_held_per_tenant=2,
        starvation_s=None,
        drop_late="slo",
        saturation=Saturation(waiting=9, kv_usage=0.5, stale_after_s=2.0),
        engine_queue=1,
    )
    expected = ControlSettings(
        max_attempts=2,
        max_held=3,
        max_hold_s=4,
        retry_budget=budget,
        queue=queue,
        prefix_knowledge="answers",
    )
    assert read_header(log.read_bytes().splitlines()[0]).settings == expected


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("high", "there is no 'high'; there are per_tenant, starvation"),
        ("1:places=3", "there is no 'places'; there are held, hold, reserved, share"),
        ("1:held=many", "held is 'many'; write a number"),
        ("1:held=0", "max_held of the band of priority 1 is 0"),
        ("kv=2", "kv_usage of saturation is 2.0"),
        ("saturation=on", "saturation goes by what engines report"),
        ("saturation=maybe", "saturation is 'maybe'; write on or off"),
        ("per_tenant=0", "max_held_per_tenant is 0; it must be at least 1"),
        ("starvation=-1", "starvation_s is -1.0"),
        ("engine_queue=-1", "engine_queue is -1"),
        ("drop_late=often", "drop_late is 'often'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    rule: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("simulate", "--trace", "azure_conv_2023", "--requests", "1", "--fleet", "1x h100 llama-3-8b")
    with pytest.raises(SystemExit):
        main((*words, "--queue-rule", rule))
    assert f"--queue-rule: {complaint}" in " ".join(capsys.readouterr().err.split())


def test_saturation_may_be_on_as_llm_d_has_it_or_off() -> None:
    assert rules_of(None) == rules_of(["saturation=off,stale=9"]) == QueueSettings()
    assert rules_of(["saturation=on"]).saturation == Saturation()

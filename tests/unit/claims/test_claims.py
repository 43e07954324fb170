"""What a check, a receipt and a verdict are."""

from __future__ import annotations

import pytest

from millrace.claims import Check, Verdict, measure, names, receipt


def test_a_check_without_limits_is_there_to_be_read() -> None:
    check = Check(what="speed", value=3.14159, unit="x")
    assert check.passed
    assert (check.figure, check.limits) == ("3.142x", "")


@pytest.mark.parametrize(("value", "passed"), [(0.9, False), (1.0, True), (2.0, True), (2.1, False)])
def test_a_check_passes_within_its_limits(value: float, passed: bool) -> None:
    check = Check(what="speed", value=value, unit="x", at_least=1.0, at_most=2.0)
    assert check.passed is passed
    assert check.limits == ">= 1x and <= 2x"


def test_a_figure_that_is_no_number_passes_nothing() -> None:
    assert not Check(what="speed", value=float("nan"), at_least=1.0).passed


def test_receipts_are_found_by_their_files() -> None:
    assert {"apex", "burstgpt", "cloudmatrix-infer", "cxl-finetune", "fenghuang"} < set(names())
    assert "measured" not in names()


def test_a_name_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown claim 'apecs'; did you mean 'apex'"):
        receipt("apecs")


@pytest.mark.timeout(600)
def test_a_verdict_repeats_the_claim_and_every_figure(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["t3-overlap"]
    assert verdict.claimed == receipt("t3-overlap").claimed
    assert "geomean gain: " in verdict.measured
    assert "geomean gain >= 20%" in verdict.threshold
    assert measure("t3-overlap").checks == verdict.checks

"""Every receipt names its paper, measures what could fail, and holds."""

from __future__ import annotations

import pytest

from millrace.claims import Verdict, names, receipt


@pytest.mark.parametrize("name", names())
def test_a_receipt_says_what_is_claimed_by_whom_and_how_it_is_measured(name: str) -> None:
    found = receipt(name)
    assert found.claimed.endswith(".")
    assert "arXiv" in found.paper
    assert len(found.about) > 200


@pytest.mark.timeout(600)  # they are measured side by side, and some take half a minute
@pytest.mark.parametrize("name", names())
def test_a_claim_holds_or_is_timed_here(name: str, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[name]
    lost = [check for check in verdict.checks if not check.passed]
    # What is timed on this machine is no test: it may be busy with something else just now.
    assert verdict.kind == "live" or not lost, lost
    assert any(check.limits for check in verdict.checks)
    assert len({check.what for check in verdict.checks}) == len(verdict.checks)

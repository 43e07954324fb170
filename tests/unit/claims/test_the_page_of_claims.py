"""The page of claims says what the receipts say and measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from make_claims_page import PAGE, page
from millrace.claims import Check, Verdict, names


@pytest.mark.timeout(600)
def test_the_page_is_up_to_date(verdicts: dict[str, Verdict]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(map(verdicts.__getitem__, names())), (
        "run: python scripts/make_claims_page.py"
    )


def test_every_receipt_has_a_section_with_a_source_and_its_code(verdicts: dict[str, Verdict]) -> None:
    lines = page(map(verdicts.__getitem__, names())).splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == names()
    assert len([line for line in lines if line.startswith("- Source: ")]) == len(names())
    for line in lines:
        if line.startswith("- [Code]"):
            assert (PAGE.parent / Path(line.partition("(")[2].rstrip(")"))).is_file()


def test_a_claim_that_fails_is_shown_as_failed() -> None:
    lost = Verdict(
        name="apex",
        paper="p",
        claimed="c",
        measured="m",
        threshold="t",
        passed=False,
        kind="numerics",
        seconds=0.0,
        checks=[
            Check(what="a", value=0.123456, unit="x", at_least=1.0),
            Check(what="b", value=12345.6),
            Check(what="c", value=3.0),
            Check(what="d", value=1e-15),
            Check(what="e", value=7.7, steady=False),
        ],
    )
    text = page([lost])
    assert "| numerics | **fails** |" in text
    assert "| a | 0.123x | >= 1x |" in text
    assert "| b | 12,346 |  |" in text
    assert "| c | 3 |  |" in text
    assert "| d | 0 |  |" in text
    assert "| e | varies |  |" in text

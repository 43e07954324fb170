"""The page of policies says what their docstrings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from make_policy_page import main, page
from millrace.policies import FAMILIES, names


def test_every_policy_has_an_entry_with_a_source() -> None:
    listed = [name for family in FAMILIES for name in names(family)]
    assert [line[4:] for line in page().splitlines() if line.startswith("### ")] == listed
    assert "- Source: \n" not in page()


def test_the_check_fails_on_an_old_page_and_writing_it_mends_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policies.md"
    path.write_text("# Policies\n")
    assert main(["--check"], path) == 1
    assert "policies.md is not what the docstrings say" in capsys.readouterr().out
    assert (main([], path), main(["--check"], path)) == (0, 0)

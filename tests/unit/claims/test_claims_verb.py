"""`millrace claims`: what is printed, and the exit code when a claim does not hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from millrace.claims import names
from millrace.cli import main
from pages import ROOT

QUICK = ("t3-overlap", "zaya1-amd")
FAILING = '''"""Water runs uphill.

Measured is whether it does.

Source: nobody, arXiv:0000.00000.
"""

from millrace.claims import Check, Kind

KIND: Kind = "numerics"


def measure() -> list[Check]:
    return [Check(what="height gained", value=-1.0, unit=" m", at_least=0.0)]
'''


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["claims", *words])
    out, err = capsys.readouterr()
    return left.value.code, out, err


def test_claims_by_name_are_measured_and_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, *QUICK, "--json")
    assert code == 0
    found = json.loads(out)["claims"]
    assert [claim["name"] for claim in found] == list(QUICK)
    keys = {"name", "paper", "claimed", "measured", "threshold", "passed", "kind", "seconds", "checks"}
    for claim in found:
        assert set(claim) == keys
        assert claim["passed"] is True
        assert all(check["passed"] for check in claim["checks"])
    assert "zaya1-amd holds (modelled)" in err


def test_the_table_says_what_kind_of_figures_these_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "t3-overlap")
    assert code == 0
    assert "modelled" in out
    assert "T-NLG sublayers, geomean gain" in out


def test_listing_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = said(capsys, "--list", "--json")
    assert [claim["name"] for claim in json.loads(out)["claims"]] == names()
    assert err == ""
    assert "arXiv:2411.17651" in said(capsys, "--list")[1]


def test_a_wrong_name_and_too_many_wishes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "t4-overlap")
    assert code == 2
    assert "unknown claim 't4-overlap'; did you mean 't3-overlap'" in err
    assert said(capsys, "apex", "--all")[0] == 2


def test_a_claim_in_a_file_of_its_own_is_found_and_shown_as_failed(tmp_path: Path) -> None:
    copytree(ROOT / "src", tmp_path / "src", ignore=ignore_patterns("__pycache__", "*.safetensors"))
    (tmp_path / "src" / "millrace" / "claims" / "water_uphill.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, "-m", "millrace", "claims", "water-uphill", "zaya1-amd"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "water-uphill fails (numerics)" in done.stderr
    assert "FAILS" in done.stdout
    assert "holds" in done.stdout

"""The promise of the contribution guide: a file and a test make a policy, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

from pages import ROOT, read

FLEET = "2x a100-80g llama-3-8b"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests, with the two files that the guide says to write."""
    copied = tmp_path_factory.mktemp("checkout")
    copytree(ROOT / "src", copied / "src", ignore=ignore_patterns("__pycache__", "*.safetensors"))
    tests = ("tests/property", "tests/integration/gateway", "tests/replay", "tests/docs")
    for kept in ("scripts", "benchmarks", *tests):
        copytree(ROOT / kept, copied / kept, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py"):
        copy(ROOT / name, copied / name)
    for block in read(ROOT / "CONTRIBUTING.md").blocks:
        if written := block.option("file"):
            (copied / written).parent.mkdir(parents=True, exist_ok=True)
            (copied / written).write_text(block.text, encoding="utf-8")
    return copied


def test_the_test_that_the_guide_shows_passes(checkout: Path) -> None:
    assert "2 passed" in _python(checkout, "-m", "pytest", "-q", "tests/unit")


def test_the_files_that_the_guide_shows_are_in_good_style(checkout: Path) -> None:
    _python(checkout, "-m", "ruff", "check", "src/millrace/policies", "tests/unit")
    _python(checkout, "-m", "ruff", "format", "--check", "src/millrace/policies", "tests/unit")


def test_the_policy_is_listed(checkout: Path) -> None:
    listed = json.loads(_python(checkout, "-m", "millrace", "policies", "--json"))["policies"]
    assert "fewest_requests" in [policy["name"] for policy in listed if policy["family"] == "routing"]


def test_the_property_tests_hold_it_to_the_rules_of_every_routing_policy(checkout: Path) -> None:
    said = _python(checkout, "-m", "pytest", "-q", "tests/property", "-k", "fewest_requests")
    assert " passed" in said


def test_no_other_test_asks_for_more(checkout: Path) -> None:
    _python(checkout, "-m", "pytest", "-q", "tests/replay", "tests/docs/test_policy_page.py")


def test_the_policy_can_be_simulated(checkout: Path) -> None:
    said = _python(
        checkout, "-m", "millrace", "simulate", "--trace", "azure_conv_2023", "--requests", "50", "--json",
        *("--fleet", FLEET, "--routing", "fewest_requests"),
    )  # fmt: skip
    assert "fewest_requests" in said


def _python(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout / "src"), "CI": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout

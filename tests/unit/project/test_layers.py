"""The layers that the design page draws are enforced: a module that breaks one is reported."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

from pages import ROOT, read

LAYERS = "layers: each line imports only lines below it, siblings never meet"
PURE = "the pure half does no IO, keeps no clock, draws no luck, awaits nothing"
STRANGERS = "policies never know each other"
TORCHLESS = "what runs without torch imports nothing of the engine's"
BREACHES = {
    "a noun that knows a policy": ("core/x.py", "import millrace.policies.routing.fcfs", LAYERS),
    "a shell that knows another": ("gateway/x.py", "import millrace.simulate", LAYERS),
    "a package outside the layers": ("shiny/__init__.py", "", LAYERS),
    "a policy with a clock": ("policies/routing/x.py", "def now():\n    import time\n", PURE),
    "a kernel that rolls dice": ("control/x.py", "from random import random", PURE),
    "a policy that leans on another": (
        "policies/routing/x.py",
        "from millrace.policies.routing.round_robin import Policy",
        STRANGERS,
    ),
    "a simulator that needs torch": ("simulate/x.py", "import torch", TORCHLESS),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package's code and of the contracts."""
    copy(ROOT / "pyproject.toml", tmp_path)
    no_data = ignore_patterns("__pycache__", "*.safetensors", "*.json", "*.gz", "*.zst")
    copytree(ROOT / "src", tmp_path / "src", ignore=no_data)
    return tmp_path


def test_the_code_keeps_every_contract(checkout: Path) -> None:
    status, said = _lint_imports(checkout)
    assert status == 0, said
    assert all(f"{contract} KEPT" in said for contract in (LAYERS, PURE, STRANGERS, TORCHLESS))


def test_the_design_page_draws_the_layers_that_are_enforced() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    enforced = [layer for contract in settings["contracts"] for layer in contract.get("layers", ())]
    drawings = [block.text for block in read(ROOT / "docs" / "design.md").blocks]
    drawn = [line.split("  ")[0] for drawing in drawings for line in drawing.splitlines()]
    assert [line for line in drawn if line in enforced] == enforced


@pytest.mark.parametrize("breach", BREACHES)
def test_a_module_that_breaks_a_contract_is_reported(checkout: Path, breach: str) -> None:
    name, text, contract = BREACHES[breach]
    module = checkout / "src" / "millrace" / name
    module.parent.mkdir(exist_ok=True)
    module.write_text(text)
    status, said = _lint_imports(checkout)
    assert status == 1
    assert f"{contract} BROKEN" in said


def _lint_imports(checkout: Path) -> tuple[int, str]:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr

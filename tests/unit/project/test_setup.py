"""On a machine that lacks something, the first command says what to install."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import copy, which

from pages import ROOT

NEW_ENOUGH_WITHOUT_VENV = """#!/bin/sh
case "$2" in
    *"import venv"*) exit 1 ;;
    *"print"*) echo 3.12 ;;
esac
"""


def test_without_a_python_new_enough_it_says_where_to_get_one(tmp_path: Path) -> None:
    done = _setup(tmp_path, {"python3": "#!/bin/sh\nexit 1\n"})
    assert done.returncode == 1
    assert "no Python 3.11 to 3.14 found" in done.stderr
    assert "apt install python3" in done.stderr


def test_a_python_without_venv_is_told_apart(tmp_path: Path) -> None:
    done = _setup(tmp_path, {"python3.12": NEW_ENOUGH_WITHOUT_VENV})
    assert done.returncode == 1
    assert "apt install python3.12-venv" in done.stderr


def test_help_lists_every_target() -> None:
    outside = {"PATH": os.environ["PATH"]}  # not within another make
    said = subprocess.run(["make"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    listed = [line.split()[1] for line in said.splitlines()]
    tests = ["test", "test-engines", "compiled", "check", "pythons"]
    assert listed == ["help", "demo", "serve", *tests, "clean"]


def _setup(root: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the set-up in a checkout where only these programs, and dirname, can be found."""
    (root / "scripts").mkdir()
    copy(ROOT / "scripts" / "setup.sh", root / "scripts")
    (root / "bin").mkdir()
    (root / "bin" / "dirname").symlink_to(which("dirname") or "")
    for name, text in programs.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    shell = [which("sh") or "sh", str(root / "scripts" / "setup.sh"), "engine"]
    return subprocess.run(shell, env={"PATH": str(root / "bin")}, capture_output=True, text=True, check=False)

"""What is installed is the package with its data, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from pages import ROOT

WHEEL_BYTES = 14 << 20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < WHEEL_BYTES


def test_the_wheel_holds_the_data_that_commands_need_and_the_notices_that_go_with_it(wheel: Path) -> None:
    names = {name.partition("/")[2] for name in ZipFile(wheel).namelist()}
    assert {"py.typed", "data/demo_model/model.safetensors", "data/traces/azure_conv_2023.csv.gz"} <= names
    assert {"licenses/LICENSE", "licenses/NOTICE"} <= names


def test_the_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"millrace"}
    assert not [name for name in names if "__pycache__" in name]

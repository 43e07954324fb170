"""Compiles the hot modules with mypyc if a wheel is built with MILLRACE_COMPILED=1; does nothing otherwise.

The sources stay what they are: a copy of them is compiled, and what comes of it lies beside them in the
wheel, where Python finds it first. Needs a C compiler; pip fetches the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WANTED = "MILLRACE_COMPILED"
# Plain classes and functions. What defines msgspec's structs stays interpreted, as mypyc would forget their
# options. So do the controller and the policies: others may inherit from them, which compiled classes forbid.
MODULES = {
    "control": ("drains", "expiry", "lawful", "moves", "placing", "state"),
    "core/cost": ("attention_grid", "overlapping", "profiled", "roofline", "scaled"),
    "replica": (
        *("adapters", "batch", "blocks", "decodes", "forming"),
        *("grouping", "imports", "lasting", "noting", "replica", "runs", "sequence", "swapping"),
    ),
    "simulate": (
        *("agenda", "bill", "cache_pool", "encoding", "handover"),
        *("lockstep", "moving", "presence", "server", "telling", "world"),
    ),
}
# Compiled classes have no dictionary anyway, and mypyc knows no other way to say so.
SLOTS = re.compile(r"\n    __slots__ = \([^)]*\)\n|, slots=True|slots=True, ")


class CompiledWheel(BuildHookInterface[Any]):
    """Adds the compiled modules to the wheel, which is then for one Python on one platform."""

    def dependencies(self) -> list[str]:
        """Return what is needed to build the wheel."""
        return ["mypy[mypyc]>=2.4,<2.5", "msgspec>=0.19"] if self._wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is packed; an editable one stays what its sources are."""
        if not self._wanted or version == "editable":
            return
        copied = Path(self.root, "build", "mypyc")
        rmtree(copied, ignore_errors=True)
        copytree(Path(self.root, "src"), copied, ignore=ignore_patterns("__pycache__", "*.so"))
        compile_in(copied)
        made = [path for path in copied.rglob("*.so") if "build" not in path.relative_to(copied).parts]
        build_data["force_include"] |= {str(path): str(path.relative_to(copied)) for path in made}
        build_data["pure_python"], build_data["infer_tag"] = False, True

    @property
    def _wanted(self) -> bool:
        return os.environ.get(WANTED, "") not in ("", "0")


def compile_in(copied: Path) -> None:
    """Compile the modules where they are. Raises RuntimeError with what mypyc or the C compiler said."""
    paths = [Path("millrace", folder, f"{name}.py") for folder, names in MODULES.items() for name in names]
    for path in (copied / path for path in paths):
        path.write_text(SLOTS.sub("", path.read_text()))
    environment = {**os.environ, "PYTHONPATH": "", "MYPYPATH": str(copied), "MYPYC_DEBUG_LEVEL": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mypyc", *map(str, paths)],
        cwd=copied,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise RuntimeError(f"mypyc could not compile Millrace:\n{done.stdout[-4000:]}")

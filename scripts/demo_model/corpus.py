"""The demo model's corpus: the source of Python's own standard library (CPython, licensed under PSF-2.0)."""

from __future__ import annotations

import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path

# Tests, tools, tables, and records of one build teach a small model little about the library.
SKIPPED_FOLDERS = {
    "__phello__", "__pycache__", "encodings", "ensurepip", "idle_test", "idlelib", "lib-dynload", "lib2to3",
    "pydoc_data", "site-packages", "test", "tests", "turtledemo",
}  # fmt: skip
SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
HELD_OUT_ONE_IN = 24


@dataclass(frozen=True)
class SourceFile:
    """One module of the standard library: its path below the library's folder, and its text."""

    path: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the file is for validation only, decided by its name alone."""
        return zlib.crc32(self.path.encode()) % HELD_OUT_ONE_IN == 0


def standard_library() -> list[SourceFile]:
    """Read every module of the running Python's standard library, sorted by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    wanted = [path for path in paths if _is_wanted(path)]
    return [SourceFile(path, (root / path).read_text("utf-8", "replace")) for path in wanted]


def _is_wanted(path: str) -> bool:
    parts = path.split("/")
    return not SKIPPED_FOLDERS.intersection(parts) and not parts[0].startswith(SKIPPED_PREFIXES)

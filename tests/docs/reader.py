"""A reader who does what a page says: runs its commands and programs, and compares what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pages import ROOT, Block

PATIENCE_S = 100.0


@dataclass(frozen=True)
class Command:
    """What to type after a `$`, and the lines that should come of it (`...` stands for anything)."""

    line: str
    expected: tuple[str, ...]


def commands(block: Block) -> list[Command]:
    """Split a console block into its commands; a backslash continues one on the next line."""
    joined = block.text.replace("\\\n", "").splitlines()
    starts = [n for n, line in enumerate(joined) if line.startswith("$ ")]
    ends = [*starts[1:], len(joined)]
    return [
        Command(
            joined[start].removeprefix("$ "), tuple(filter(None, map(str.strip, joined[start + 1 : end])))
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """Return the first expected line that does not follow the ones before it; spaces may be wider."""
    rest = map(_narrow, output.splitlines())
    for line in expected:
        pattern = re.compile(re.escape(_narrow(line)).replace(re.escape("..."), ".*"))
        if line != "..." and not any(map(pattern.fullmatch, rest)):
            return line
    return None


def _narrow(line: str) -> str:
    return " ".join(line.split())


class Reader:
    """Works through a page in a folder of its own; leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        tools = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "110",
        }

    def __enter__(self) -> Self:
        (self.folder / "examples").symlink_to(ROOT / "examples")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def follow(self, block: Block) -> None:
        """Do what one block says, as its options ask."""
        if "no-run" in block.options:
            return
        if name := block.option("file"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._run([sys.executable, "-c", block.text], (), 0)
        elif block.language == "console":
            self._type(block)

    def _type(self, block: Block) -> None:
        *before, last = commands(block)
        for command in before:
            self._run(["bash", "-c", command.line], command.expected, 0)
        if "background" in block.options:
            self._stack.enter_context(self._running(last))
        else:
            self._run(["bash", "-c", last.line], last.expected, int(block.option("exit") or 0))

    def _run(self, argv: list[str], expected: tuple[str, ...], status: int) -> None:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == status, f"{argv[-1]}\nexited with {done.returncode}:\n{done.stdout}"
        lost = missing(expected, done.stdout)
        assert lost is None, f"{argv[-1]}\ndid not print {lost!r} but:\n{done.stdout}"

    @contextmanager
    def _running(self, command: Command) -> Iterator[None]:
        """Start a program that stays, wait until it said what is expected, and end it at the end."""
        said = self.folder / "said.log"
        with said.open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.line}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while missing(command.expected, said.read_text()) is not None:
                assert process.poll() is None, f"{command.line}\nended early:\n{said.read_text()}"
                assert time.monotonic() < deadline_s, f"{command.line}\nonly said:\n{said.read_text()}"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_S)

"""Reads the project's Markdown: fenced blocks, headings and links, each with the line it stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"(#{1,6}) +(.+?) *#*$")
LINK = re.compile(r"\]\(([^()\s]+)\)")


class PageError(ValueError):
    """A page that cannot be read; the message names the line."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it (`no-run`, `file=x.py`), its text, its first line."""

    language: str
    options: tuple[str, ...]
    text: str
    line: int

    def option(self, name: str) -> str | None:
        """Return the value of `name=value`, or None."""
        values = [o.partition("=")[2] for o in self.options if o.startswith(f"{name}=")]
        return values[0] if values else None


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]

    @property
    def headings(self) -> list[tuple[int, int, str]]:
        """Return (line, level, text) of every heading."""
        found = ((line, HEADING.match(text)) for line, text in self.prose)
        return [(line, len(match[1]), match[2]) for line, match in found if match]

    @property
    def anchors(self) -> set[str]:
        """Return what links into the page may name after their `#`."""
        return {anchor(text) for _, _, text in self.headings}

    @property
    def links(self) -> list[tuple[int, str]]:
        """Return (line, target) of every inline link."""
        bare = ((line, re.sub(r"`[^`]*`", "", text)) for line, text in self.prose)
        return [(line, target) for line, text in bare for target in LINK.findall(text)]


def anchor(heading: str) -> str:
    """Return the name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read(path: Path) -> Page:
    """Read a page. Raises PageError for a fence that is never closed."""
    blocks, prose = [], []
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        if line.startswith("```"):
            blocks.append(_block(path, number, line, lines))
        else:
            prose.append((number, line))
    return Page(path, tuple(blocks), tuple(prose))


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page of the project that is written by hand for its readers."""
    top = [root / "README.md", root / "CONTRIBUTING.md", *(root / "changelog").glob("*.md")]
    return sorted([*top, *(root / "docs").rglob("*.md")])


def _block(path: Path, number: int, opening: str, lines: Iterator[tuple[int, str]]) -> Block:
    language, *options = opening.strip("`").split() or [""]
    text: list[str] = []
    for _, line in lines:
        if line == "```":
            return Block(language, tuple(options), "".join(text), number)
        text.append(line + "\n")
    raise PageError(f"{path.name}:{number}: this fence is never closed")

"""Checks the documents: links lead somewhere, every page can be found, every block says what it is.

    python scripts/check_docs.py

That the commands and programs in them work is checked by `tests/docs`, which runs them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pages import ROOT, Page, PageError, pages, read

LANGUAGES = {
    "console": {"no-run", "background", "exit"},
    "python": {"no-run", "file"},
    "text": set(),
    "json": set(),
    "toml": set(),
}


def headings(page: Page) -> Iterator[tuple[int, str]]:
    """A page has one title, on its first line, and skips no level below it."""
    found = page.headings
    if not found or found[0][:2] != (1, 1):
        yield 1, "the first line is no title (`# ...`)"
    for (_, before, _), (line, level, text) in pairwise(found):
        if level == 1:
            yield line, f"a second title: {text!r}"
        if level > before + 1:
            yield line, f"{text!r} skips a level"


def blocks(page: Page) -> Iterator[tuple[int, str]]:
    """A block names its language, and only options that mean something."""
    for block in page.blocks:
        if block.language not in LANGUAGES:
            yield block.line, f"a block of {block.language!r}; known are {', '.join(LANGUAGES)}"
            continue
        for option in block.options:
            if option.partition("=")[0] not in LANGUAGES[block.language]:
                yield block.line, f"{block.language} blocks have no option {option!r}"
        if block.language == "console" and not block.text.startswith("$ "):
            yield block.line, "a console block starts with a command (`$ ...`)"


def links(page: Page, known: dict[Path, Page]) -> Iterator[tuple[int, str]]:
    """A link inside the project leads to a file, and to a heading if it names one."""
    for line, target in page.links:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, fragment = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.exists():
            yield line, f"{target} leads nowhere"
        elif fragment and (path not in known or fragment not in known[path].anchors):
            yield line, f"{target} names no heading of {path.name}"


def unreachable(known: dict[Path, Page], start: Path) -> set[Path]:
    """Return the pages in docs that no chain of links from the start page leads to."""
    seen, new = set(), {start} & known.keys()
    while new:
        seen |= new
        targets = {(p.parent / t.partition("#")[0]).resolve() for p in new for _, t in known[p].links}
        new = (targets & known.keys()) - seen
    return {path for path in known if path.parent == start.parent} - seen


def problems(root: Path) -> Iterator[str]:
    """Yield everything that is wrong with the documents of this checkout."""
    known: dict[Path, Page] = {}
    for path in pages(root):
        try:
            known[path.resolve()] = read(path)
        except PageError as error:
            yield str(error)
    for path, page in known.items():
        for line, message in [*headings(page), *blocks(page), *links(page, known)]:
            yield f"{path.relative_to(root)}:{line}: {message}"
    for path in sorted(unreachable(known, root / "docs" / "index.md")):
        yield f"{path.relative_to(root)}:1: no link leads here from docs/index.md"


def main(root: Path = ROOT) -> int:
    """Print what is wrong; return the exit status."""
    found = list(problems(root.resolve()))
    for problem in found:
        print(problem)
    print(f"{len(found)} problems in {len(pages(root))} pages")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""The check of the documents finds what would leave a reader stranded."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_docs import main, problems
from pages import anchor, read

GOOD = "# Title\n\n## What it does\n\nSee [below](#what-it-does) and [that](https://example.org).\n"
BAD = {
    "no title": ("Some text.\n", "1: the first line is no title"),
    "two titles": ("# One\n# Two\n", "2: a second title"),
    "a level that is skipped": ("# One\n### Three\n", "2: 'Three' skips a level"),
    "a dead link": ("# One\n[there](gone.md)\n", "2: gone.md leads nowhere"),
    "a dead anchor": ("# One\n[there](#gone)\n", "2: #gone names no heading"),
    "a block of no language": ("# One\n```\nx\n```\n", "2: a block of ''"),
    "an unknown option": ("# One\n```console twice\n$ true\n```\n", "no option 'twice'"),
    "a console without a command": ("# One\n```console\nhello\n```\n", "starts with a command"),
    "an open fence": ("# One\n```text\nx\n", "2: this fence is never closed"),
}


def test_a_good_page_has_no_problems(tmp_path: Path) -> None:
    assert list(problems(_checkout(tmp_path, GOOD))) == []


@pytest.mark.parametrize("case", BAD)
def test_a_problem_is_reported_with_its_line(tmp_path: Path, case: str) -> None:
    text, expected = BAD[case]
    found = list(problems(_checkout(tmp_path, text)))
    assert len(found) == 1, found
    assert "page.md:" in found[0]
    assert expected in found[0]


def test_a_page_to_which_nothing_leads_is_reported(tmp_path: Path) -> None:
    root = _checkout(tmp_path, GOOD)
    (root / "docs" / "lost.md").write_text("# Lost\n")
    assert list(problems(root)) == ["docs/lost.md:1: no link leads here from docs/index.md"]


def test_the_command_fails_when_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _checkout(tmp_path, BAD["a dead link"][0])
    assert main(root) == 1
    assert capsys.readouterr().out.endswith("1 problems in 4 pages\n")


def test_blocks_know_their_options_and_links_in_code_are_not_links(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("# T\n```python file=a.py\nx = 1\n```\n`[not](a-link)`\n")
    block = read(page).blocks[0]
    assert (block.language, block.option("file"), block.text, block.line) == ("python", "a.py", "x = 1\n", 2)
    assert read(page).links == []


def test_anchors_are_github_s() -> None:
    assert anchor("What `serve` does, and why") == "what-serve-does-and-why"


def _checkout(root: Path, text: str) -> Path:
    (root / "docs").mkdir()
    (root / "docs" / "page.md").write_text(text)
    (root / "docs" / "index.md").write_text("# Index\n[page](page.md)\n")
    (root / "README.md").write_text("# R\n")
    (root / "CONTRIBUTING.md").write_text("# C\n")
    return root

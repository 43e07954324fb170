"""The page on the command line leaves no verb out."""

from __future__ import annotations

import typer.main

from millrace.cli import app
from pages import ROOT, read


def test_every_verb_has_a_section_and_every_section_a_verb() -> None:
    page = read(ROOT / "docs" / "cli.md")
    sections = [
        text.removeprefix("millrace ") for _, _, text in page.headings if text.startswith("millrace ")
    ]
    command = typer.main.get_command(app)
    assert sorted(sections) == sorted(getattr(command, "commands", {}))

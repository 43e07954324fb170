"""The options of `millrace route`, with the words that `--help` shows for them, in panels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

QUESTION = "A request that nobody sent"

Log = Annotated[
    Path, typer.Option("--log", metavar="FILE", help="An event log that a gateway or a simulation wrote.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Logged = Annotated[
    str | None, typer.Option("--request", metavar="ID", help="A request of the log: why did it go there?")
]
Attempt = Annotated[int, typer.Option(min=1, metavar="N", help="Which of the times that it was sent.")]
Instead = Annotated[
    str | None,
    typer.Option("--policy", metavar="POLICY", help="Ask this routing policy instead of the log's own."),
]
Shadows = Annotated[
    str,
    typer.Option("--policy", metavar="POLICY[,POLICY]", help="The routing policies to ask as well."),
]
At = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Or a moment of the log: where would a request go?", rich_help_panel=QUESTION
    ),
]
PromptTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Its prompt's length.", rich_help_panel=QUESTION)
]
PrefixOf = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="The request of the log whose prompt it begins like; what is not said is as there.",
        rich_help_panel=QUESTION,
    ),
]
PrefixTokens = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="For so many tokens only.", rich_help_panel=QUESTION)
]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="Its model.", rich_help_panel=QUESTION)]
Adapter = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its low-rank adapter.", rich_help_panel=QUESTION)
]
Session = Annotated[str | None, typer.Option(metavar="NAME", help="Its session.", rich_help_panel=QUESTION)]
Objective = Annotated[
    str | None,
    typer.Option("--slo", metavar="ttft=TIME", help="Its objective, like ttft=2s.", rich_help_panel=QUESTION),
]

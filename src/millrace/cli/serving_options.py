"""The options of `millrace serve`, with the words that `--help` shows for them, in panels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ENGINES = "What is served"
LISTENING = "Where, and how long"
POLICIES = "Who decides"
NAMES = "Names of models"

Backends = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL", help="An engine, \\[NAME=]http://HOST:PORT (repeatable).", rich_help_panel=ENGINES
    ),
]
Demo = Annotated[
    bool,
    typer.Option(
        "--demo", help="Start engines with the demo model and serve those.", rich_help_panel=ENGINES
    ),
]
Engines = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many engines --demo starts.", rich_help_panel=ENGINES)
]
Specs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON file: for a backend, what was bought (see docs/wire.md).",
        rich_help_panel=ENGINES,
    ),
]
Bootstrap = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=HOST:PORT",
        help="Where SGLang's engines meet the one of this name, which computes prompts, if it does not say "
        "that itself (repeatable; see docs/wire.md).",
        rich_help_panel=ENGINES,
    ),
]
Scrape = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="Between two looks at each engine.", rich_help_panel=ENGINES),
]
Host = Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.", rich_help_panel=LISTENING)]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        metavar="PORT",
        help="Port to listen on; 0 takes any free one.",
        rich_help_panel=LISTENING,
    ),
]
AdminHost = Annotated[
    str, typer.Option(metavar="HOST", help="Address of the admin port.", rich_help_panel=LISTENING)
]
AdminPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        metavar="PORT",
        help="Serve metrics and health on this port too; 0 takes any free one.",
        rich_help_panel=LISTENING,
    ),
]
Drain = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="What running answers get on SIGTERM.",
        rich_help_panel=LISTENING,
    ),
]
MaxBody = Annotated[
    int, typer.Option(metavar="BYTES", help="What a request body may have.", rich_help_panel=LISTENING)
]
Failover = Annotated[
    Literal["on", "off"],
    typer.Option(
        help="Whether a stream goes on at another engine when its own breaks (see docs/wire.md).",
        rich_help_panel=ENGINES,
    ),
]
StallTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="How long an engine may send nothing in the middle of a stream.",
        rich_help_panel=ENGINES,
    ),
]
Routing = Annotated[
    str,
    typer.Option(
        metavar="POLICY", help="Which engine is next; see `millrace policies`.", rich_help_panel=POLICIES
    ),
]
Queueing = Annotated[
    str, typer.Option(metavar="POLICY", help="Which request is next.", rich_help_panel=POLICIES)
]
Migration = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="Which requests move to another engine (see docs/wire.md); none if left out.",
        rich_help_panel=POLICIES,
    ),
]
EventLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write every event and decision to this file.", rich_help_panel=POLICIES
    ),
]
LogScores = Annotated[
    bool,
    typer.Option(
        "--log-scores",
        help="Write what was weighed for each decision too, for `millrace route`.",
        rich_help_panel=POLICIES,
    ),
]
Shadow = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY[,POLICY]",
        help="Ask these policies too, and count on the metrics page how often they disagree.",
        rich_help_panel=POLICIES,
    ),
]
Alias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=MODEL",
        help="Another name of a model, or of several by weight, like chat=llama:90,qwen:10; "
        "the name * stands for any that is not served (repeatable).",
        rich_help_panel=NAMES,
    ),
]
Fallback = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL=OTHER",
        help="Models to turn to when one cannot answer, like llama=qwen,phi (repeatable).",
        rich_help_panel=NAMES,
    ),
]
AnswerAsAsked = Annotated[
    bool,
    typer.Option(
        "--answer-as-asked/--answer-as-served",
        help="What an answer calls its model: the name asked for, or the engine's own.",
        rich_help_panel=NAMES,
    ),
]

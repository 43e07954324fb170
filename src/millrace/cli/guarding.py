"""The guard against answers that run on: what `millrace serve` does about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from millrace.core.overflow_words import parse_guard
from millrace.gateway import Guarding

ANSWERS = "Answers that run on"

Guard = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help="What is done about answers that run on: off, watch, cap, remind, or several, with numbers like "
        "cap,long=1000,share=0.5 (see docs/overflow.md).",
        rich_help_panel=ANSWERS,
    ),
]
Reminder = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="With remind: what is added to the last message of chats that tend to run on.",
        rich_help_panel=ANSWERS,
    ),
]


def guarding_of(said: Mapping[str, Any]) -> Guarding | None:
    """Return the gateway's guard for these options, None for none. Raises ValueError."""
    settings, reminder = parse_guard(said["overflow_guard"]), said["overflow_reminder"]
    if reminder is not None and (settings is None or not settings.reminds):
        raise ValueError("--overflow-reminder is for --overflow-guard remind: say that too")
    if settings is None:
        return None
    return Guarding(settings if reminder is None else replace(settings, reminder=reminder))

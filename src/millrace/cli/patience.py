"""How patient a fleet is when engines fail or are busy: the same options for `serve` and `simulate`."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.waiting import RULES
from millrace.control import ControlSettings, RetryBudget

FAILURES = "When engines fail or are busy"
BUDGET = RetryBudget()
PATIENCE = ControlSettings(retry_budget=BUDGET, queue=RULES, prefix_knowledge="answers")
"""What both do if nobody says otherwise."""

MaxAttempts = Annotated[
    int, typer.Option(metavar="N", help="Replicas a request is tried on.", rich_help_panel=FAILURES)
]
RetryRatio = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Of all requests, what may be tried again.", rich_help_panel=FAILURES),
]
RetryReserve = Annotated[
    int,
    typer.Option(metavar="N", help="Retries kept for an engine's sudden death.", rich_help_panel=FAILURES),
]
RetryFloor = Annotated[
    float,
    typer.Option(
        metavar="N", help="Retries allowed each second, however little comes.", rich_help_panel=FAILURES
    ),
]
MaxHeld = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Requests held per model while no replica can take them.",
        rich_help_panel=FAILURES,
    ),
]
MaxWaiting = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Requests that wait at a replica for their first token; else as many as are sent there.",
        rich_help_panel=FAILURES,
    ),
]
MaxHold = Annotated[
    float,
    typer.Option(
        "--max-hold", metavar="SECONDS", help="How long a request is held.", rich_help_panel=FAILURES
    ),
]

"""The options of `millrace simulate`, with the words that `--help` shows for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

TraceName = Annotated[
    str, typer.Option(help="A shipped name (azure_conv_2023, mooncake_conversation) or a path.")
]
Fleet = Annotated[str, typer.Option(help='What to run it on, like "8x a100-80g llama-3-8b tp=1".')]
Routing = Annotated[str, typer.Option(help="Policies to compare, separated by commas.")]
Queueing = Annotated[str, typer.Option(help="Queueing policy.")]
Batching = Annotated[str, typer.Option(help="Batching policy of every replica.")]
Calibration = Annotated[
    str | None,
    typer.Option(help="Price steps by this calibration (shipped name or file), not by data sheets."),
]
Objectives = Annotated[str, typer.Option(help="Objectives of a request.")]
Requests = Annotated[int | None, typer.Option(min=0, help="Only the first so many requests.")]
Rate = Annotated[float, typer.Option(help="Let requests come this many times as fast.")]
InputScale = Annotated[float, typer.Option(help="Multiply prompt lengths by this.")]
OutputScale = Annotated[float, typer.Option(help="Multiply answer lengths by this.")]
MaxHold = Annotated[float, typer.Option(help="Seconds a request may be held.")]
Find = Annotated[
    Literal["capacity"] | None,
    typer.Option(help="Search the highest rate at which enough requests meet --slo."),
]
Attain = Annotated[float, typer.Option(help="With --find: the share of requests that must meet --slo.")]
Repeat = Annotated[int, typer.Option(min=1, help="Runs per policy, each with arrivals drawn anew.")]
Processes = Annotated[int, typer.Option("--jobs", min=1, help="Processes to run at a time.")]
Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="Run again with all steps 10 % shorter, and 10 % longer.")
]
Log = Annotated[
    Path | None,
    typer.Option(help="Write the event log here; -NAME is added for each of several policies."),
]
RequestsOut = Annotated[Path | None, typer.Option(help="Write one JSON line per request here.")]
Report = Annotated[Path | None, typer.Option(help="Folder for a report as an HTML page.")]
ChromeTrace = Annotated[
    Path | None, typer.Option(help="Write what replicas did over time here, for chrome://tracing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

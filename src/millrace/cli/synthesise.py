"""`millrace trace synthesise`: traffic like a recorded one, of any length and from any seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from millrace.cli.options import duration_s, read
from millrace.cli.output import put_json, put_table, say
from millrace.cli.trace_file import check_target, write_file
from millrace.core.synthetic import Burst, Workload, distance, fit_workload, generate
from millrace.core.trace import TraceRecord
from millrace.data import open_trace

SCHEMA = "millrace.synthesis/1"
FIGURES = ("input_tokens", "output_tokens", "gap_s")


def run(
    trace: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="What to fit to: a shipped trace or a file."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; it is replaced if it exists.")
    ],
    *,
    requests: Annotated[int | None, typer.Option(min=1, metavar="N", help="Make so many requests.")] = None,
    lasting: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="Or make what comes in so long, like 2h; else as long as the trace."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed makes another trace.")] = 0,
    period: Annotated[
        str, typer.Option(metavar="TIME", help="Rate and burstiness are fitted to each such period.")
    ] = "60s",
    burst: Annotated[Burst, typer.Option(help="How gaps between requests are distributed.")] = "gamma",
    block_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Name blocks of so many tokens, which turns share; else of the trace's, if it has any.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model that all requests ask for.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a workload to a trace, write requests drawn from it in our format, and say how like they are."""
    if requests is not None and lasting is not None:
        raise ValueError("--requests and --for both say when to stop: leave out one of them")
    check_target(trace, out)
    lasting_s = read("--for", duration_s, lasting)
    recorded = sorted(open_trace(trace), key=lambda record: record.t_s)
    workload = fit_workload(recorded, period_s=duration_s(period), burst=burst)
    blocks = block_tokens or _blocks(recorded)
    made = list(_made(workload, requests, lasting_s, seed, model=model, block_tokens=blocks))
    if not made:
        raise ValueError(f"--for {lasting}: nothing comes in that time; make it longer, or say --requests")
    write_file(made, out, "millrace")
    say(f"wrote {len(made)} requests to {out}")
    likeness = _likeness(recorded, made)
    if as_json:
        put_json({**_report(trace, out, seed, made), "likeness": likeness})
    else:
        put_table(_table(recorded, made, likeness))


def _report(trace: str, out: Path, seed: int, made: Sequence[TraceRecord]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "trace": trace,
        "out": str(out),
        "seed": seed,
        "requests": len(made),
        "duration_s": made[-1].t_s,
        "sessions": len({record.session for record in made if record.session}),
    }


def _made(
    workload: Workload,
    requests: int | None,
    lasting_s: float | None,
    seed: int,
    *,
    model: str | None,
    block_tokens: int | None,
) -> Iterator[TraceRecord]:
    """Yield what was asked for; a time may go beyond the end of the trace that was fitted to."""
    count = sys.maxsize if lasting_s is not None else requests
    every = generate(workload, seed=seed, requests=count, model=model, block_tokens=block_tokens)
    return every if lasting_s is None else takewhile(lambda record: record.t_s < lasting_s, every)


def _blocks(recorded: Sequence[TraceRecord]) -> int | None:
    return next((record.block_tokens for record in recorded if record.blocks), None)


def _figures(records: Sequence[TraceRecord]) -> dict[str, list[float]]:
    answered = [record for record in records if not record.failed]
    return {
        "input_tokens": [record.input_tokens for record in answered],
        "output_tokens": [record.output_tokens for record in answered],
        "gap_s": [b.t_s - a.t_s for a, b in pairwise(records)],
    }


def _likeness(recorded: Sequence[TraceRecord], made: Sequence[TraceRecord]) -> dict[str, float | None]:
    """Return the distance of each distribution (Kolmogorov, Smirnov): 0 alike, 1 nothing in common."""
    ours, theirs = _figures(made), _figures(recorded)
    return {
        name: distance(ours[name], theirs[name]) if ours[name] and theirs[name] else None for name in FIGURES
    }


def _table(recorded: Sequence[TraceRecord], made: Sequence[TraceRecord], likeness: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.caption = "distance: the largest gap between the shares up to any value; 0 is alike"
    table.caption_justify = "left"
    for column in ("mean of", "trace", "made", "distance"):
        table.add_column(column, justify="left" if column == "mean of" else "right")
    theirs, ours = _figures(recorded), _figures(made)
    for name in FIGURES:
        far = likeness[name]
        table.add_row(name, _mean(theirs[name]), _mean(ours[name]), "-" if far is None else f"{far:.3f}")
    return table


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):,.3f}" if values else "-"

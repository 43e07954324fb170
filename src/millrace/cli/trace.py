"""`millrace trace`: look at recorded traffic, turn one format into another, and make more like it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from millrace.cli import synthesise
from millrace.cli.options import factor
from millrace.cli.output import put_json, put_table, say
from millrace.cli.trace_file import check_target, write_file
from millrace.core.stats import Summary
from millrace.core.synthetic import find_sessions
from millrace.core.trace.formats import Format
from millrace.core.trace.inspect import TraceSummary
from millrace.core.trace.inspect import inspect as summarise
from millrace.core.trace.reshape import first, scale_lengths, scale_rate
from millrace.data import open_trace

app = typer.Typer(
    help="Look at recorded traffic, convert it between formats, and make more like it.", no_args_is_help=True
)

CONVERTED = "millrace.conversion/1"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A shipped trace (azure_conv_2023, mooncake_conversation) or a file."
    ),
]


@app.command("inspect")
def inspect(
    trace: Source,
    as_json: AsJson = False,
) -> None:
    """Say what a trace is like: rate, burstiness, lengths, and how much of it a prefix cache could reuse."""
    found = summarise(open_trace(trace))
    if as_json:
        put_json(found)
    else:
        put_table(_table(found))


@app.command("convert")
def convert(
    trace: Source,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; it is replaced if it exists.")
    ],
    *,
    to: Annotated[
        Format, typer.Option("--to", help="The format to write; only millrace keeps every field.")
    ] = "millrace",
    requests: Annotated[
        int | None, typer.Option(metavar="N", help="Keep only the first so many requests.")
    ] = None,
    rate: Annotated[
        float,
        typer.Option(parser=factor, metavar="xN", help="Let requests come so many times as fast, like x2."),
    ] = 1.0,
    lengths: Annotated[
        float,
        typer.Option(parser=factor, metavar="xN", help="Multiply lengths of prompts and answers, like x0.5."),
    ] = 1.0,
    input_scale: Annotated[
        float, typer.Option(parser=factor, metavar="xN", help="Multiply lengths of prompts only.")
    ] = 1.0,
    output_scale: Annotated[
        float, typer.Option(parser=factor, metavar="xN", help="Multiply lengths of answers only.")
    ] = 1.0,
    sessions: Annotated[
        bool,
        typer.Option("--find-sessions", help="Name conversations, found by what prompts begin with."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read a trace of any known format and write it in another."""
    check_target(trace, out)
    recorded = open_trace(trace)
    records = scale_rate(find_sessions(recorded) if sessions else recorded, rate)
    records = scale_lengths(records, input_factor=lengths * input_scale, output_factor=lengths * output_scale)
    if requests is not None:
        records = first(records, requests)
    count = write_file(records, out, to)
    say(f"wrote {count} requests to {out}")
    if as_json:
        put_json({"schema": CONVERTED, "trace": trace, "out": str(out), "format": to, "requests": count})


app.command("synthesise")(synthesise.run)


def _table(found: TraceSummary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in msgspec.structs.asdict(found).items():
        if value not in (None, {}):
            table.add_row(name, _shown(value))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, Summary):
        shown = ("mean", "p50", "p75", "p90", "p95", "p99", "max")
        return "  ".join(f"{name} {getattr(value, name):,.0f}" for name in shown)
    if isinstance(value, dict):
        return ", ".join(f"{name or '(none)'}: {count:,}" for name, count in value.items())
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"

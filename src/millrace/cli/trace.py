"""`millrace trace`: look at recorded traffic, and turn one format into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from millrace.cli.output import put_json, put_table, say
from millrace.core.stats import Summary
from millrace.core.trace.formats import Format, write_trace
from millrace.core.trace.inspect import TraceSummary
from millrace.core.trace.inspect import inspect as summarise
from millrace.core.trace.reshape import first, scale_lengths, scale_rate
from millrace.data import open_trace

app = typer.Typer(help="Look at recorded traffic, and convert it between formats.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(help="A shipped name (azure_conv_2023, mooncake_conversation) or a path.")
]


@app.command("inspect")
def inspect(
    trace: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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
    out: Annotated[Path, typer.Argument(help="The file to write; it is replaced if it exists.")],
    *,
    to: Annotated[
        Format, typer.Option("--to", help="The format to write; only millrace keeps every field.")
    ] = "millrace",
    requests: Annotated[int | None, typer.Option(help="Keep only the first so many requests.")] = None,
    rate: Annotated[float, typer.Option(help="Let requests come this many times as fast.")] = 1.0,
    input_scale: Annotated[float, typer.Option(help="Multiply prompt lengths by this.")] = 1.0,
    output_scale: Annotated[float, typer.Option(help="Multiply answer lengths by this.")] = 1.0,
) -> None:
    """Read a trace of any known format and write it in another."""
    records = scale_rate(open_trace(trace), rate)
    records = scale_lengths(records, input_factor=input_scale, output_factor=output_scale)
    if requests is not None:
        records = first(records, requests)
    partial = out.with_name(out.name + ".part")
    count = -1 if to != "mooncake" else 0
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            for line in write_trace(records, to):
                file.write(line + "\n")
                count += 1
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    say(f"wrote {count} requests to {out}")


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

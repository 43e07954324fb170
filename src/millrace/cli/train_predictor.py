"""`millrace train-predictor`: learn from a log how long answers will be, from the wording of requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict
from rich.table import Table

from millrace.cli.output import EXIT_USAGE, CommandError, put_json, put_table, say
from millrace.cli.trace_file import check_target
from millrace.core.answer_length import BOUNDS, CLASSES
from millrace.core.trace import TraceRecord
from millrace.data import open_trace
from millrace.predictor import Document, Quality, write_document
from millrace.predictor.training import Training, missing, train, usable

SCHEMA = "millrace.training/1"
RARE = 0.01


def run(
    traces: Annotated[
        list[str],
        typer.Argument(metavar="TRACE...", help="Logs of serve --log-features, or traces with lexical."),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The predictor to write; it is replaced if it exists.")
    ],
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the ONNX model by itself, too, for others.")
    ] = None,
    bounds: Annotated[
        str,
        typer.Option(metavar="N,N", help="Answers below the first are short, from the second on long."),
    ] = ",".join(map(str, BOUNDS)),
    coverage: Annotated[
        float, typer.Option(metavar="SHARE", help="How often the true class is to be among those predicted.")
    ] = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Learn answer lengths from what was served, and say how well that went on requests held out."""
    if lacking := missing():
        raise CommandError(f"{lacking[0]} is not installed: pip install 'millrace[predictor]'", EXIT_USAGE)
    for target in filter(None, (out, onnx)):
        for trace in traces:
            check_target(trace, target)
    how = Training(bounds=_bounds(bounds), coverage=coverage)
    made = train(usable(_records(traces)), how)
    write_document(made, out)
    if onnx is not None:
        onnx.write_bytes(made.onnx)
    say(f"wrote {out}")
    for line in _doubts(made):
        say(f"warning: {line}")
    if as_json:
        put_json(_report(traces, out, made))
    else:
        put_table(_table(made.quality))


def _records(traces: Sequence[str]) -> list[TraceRecord]:
    return [record for trace in traces for record in open_trace(trace)]


def _bounds(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.strip().isdecimal() and second.strip().isdecimal()):
        raise ValueError(f"--bounds: cannot read {text!r}; write two numbers of tokens, like 200,800")
    return int(first), int(second)


def _doubts(made: Document) -> list[str]:
    """Say what speaks against using it."""
    quality, doubts = made.quality, []
    for name, share in zip(CLASSES, quality.class_shares, strict=True):
        if share < RARE:
            doubts.append(f"{share:.2%} of the answers are {name}; choose --bounds that part them evenly")
    if not quality.ranks:
        doubts.append("held-out answers are hardly ranked better than by luck; this predictor helps nobody")
    return doubts


def _report(traces: Sequence[str], out: Path, made: Document) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "traces": traces,
        "out": str(out),
        "bounds": made.bounds,
        "coverage_promised": made.coverage,
        "trees": len(made.trees),
        "quality": asdict(made.quality) | {"ranks": made.quality.ranks},
    }


def _table(quality: Quality) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in asdict(quality).items():
        table.add_row(name, _shown(value))
    return table


def _shown(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return "  ".join(f"{name} {share:.1%}" for name, share in zip(CLASSES, value, strict=True))
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"

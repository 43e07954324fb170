"""A report on disk: `report.html` to read, `report.json` to compare, `requests.jsonl` to dig in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from millrace.bench.report.metrics import Difference, differences
from millrace.bench.report.model import PolicyRuns, Run, RunReport
from millrace.bench.report.page import page
from millrace.bench.report.warnings import warnings

SCHEMA = "millrace.report/1"


class Written(Struct, frozen=True):
    """Where the three files of a report are."""

    html: Path
    json: Path
    requests: Path


def write(report: RunReport, folder: Path) -> Written:
    """Write the three files into a folder, which is made if need be; older ones are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(folder / "report.html", folder / "report.json", folder / "requests.jsonl")
    written.html.write_text(page(report), encoding="utf-8")
    written.json.write_bytes(msgspec.json.format(msgspec.json.encode(summary(report)), indent=2) + b"\n")
    with written.requests.open("wb") as lines:
        lines.writelines(request_lines(report))
    return written


def summary(report: RunReport) -> dict[str, Any]:
    """Return what `report.json` holds: everything but the single requests."""
    return {
        "schema": SCHEMA,
        "title": report.title,
        "created": report.origin.created,
        "command": report.origin.command,
        "seed": report.seed,
        "slo": report.slo,
        "config": report.config,
        "versions": report.origin.versions,
        "host": report.origin.host,
        "warnings": warnings(report),
        "policies": [_policy(policy) for policy in report.policies],
    }


def request_lines(report: RunReport) -> Iterator[bytes]:
    """Yield one JSON line per request, policy, world and repeat, as `requests.jsonl` holds them."""
    encoder = msgspec.json.Encoder()
    for policy, world, repeat, run in report.every():
        names = {"policy": policy.name, "world": world, "repeat": repeat}
        for outcome in run.outcomes:
            yield encoder.encode(names | msgspec.to_builtins(outcome)) + b"\n"


def _policy(policy: PolicyRuns) -> dict[str, Any]:
    runs: dict[str, Any] = {world: _run(run) for world, run in policy.worlds()}
    repeats = [{"live": _run(one.live), "simulated": _run(one.simulated)} for one in policy.repeats]
    more = {"repeats": repeats} if repeats else {}
    return {"name": policy.name, **runs, **more, "differences": [_difference(d) for d in differences(policy)]}


def _difference(found: Difference) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(found)
    return fields | {"within": found.within}


def _run(run: Run) -> dict[str, Any]:
    return {
        "measured": run.measured,
        "client_lag_s": run.client_lag_s,
        "token_gap_s": run.token_gap_s,
        **({"occupancy": run.occupancy} if run.occupancy else {}),
    }

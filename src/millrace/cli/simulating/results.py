"""What `millrace simulate` prints: one JSON object, or a table."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.table import Table

from millrace.cli.simulating.scenario import Scenario
from millrace.simulate import Simulation

SCHEMA = "millrace.simulation/1"


def report(results: dict[str, Simulation], scenario: Scenario) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "schema": SCHEMA,
        "trace": scenario.trace,
        "fleet": scenario.fleet,
        "slo": scenario.objectives,
        "cost_models": scenario.expected_errors(),
        "policies": [_policy(name, found) for name, found in results.items()],
    }


def table(results: dict[str, Simulation]) -> Table:
    """One row per policy."""
    shown = Table(box=None, pad_edge=False, caption="simulated; times in seconds", caption_justify="left")
    shown.add_column("policy")
    counts, shares = ("requests", "completed"), ("tokens/s", "cache hit", "SLO met", "ran in")
    for column in (*counts, *_latency_columns(), *shares):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, found in results.items():
        shown.add_row(name, *_cells(found))
    return shown


def _policy(name: str, found: Simulation) -> dict[str, Any]:
    return {
        "name": name,
        **msgspec.structs.asdict(found.measured),
        "throughput": found.measured.throughput_rps,
        "simulated_s": found.simulated_s,
        "wall_s": found.wall_s,
    }


def _latency_columns() -> list[str]:
    return [f"{metric} {point}" for metric in ("TTFT", "TPOT", "E2E") for point in ("p50", "p99")]


def _cells(found: Simulation) -> list[str]:
    got = found.measured
    latencies = [
        f"{getattr(summary, point):.3f}" if summary else "-"
        for summary in (got.ttft_s, got.tpot_s, got.e2e_s)
        for point in ("p50", "p99")
    ]
    shares = [f"{got.cache_hit_ratio:.1%}", f"{got.slo_attainment:.1%}"]
    tokens = f"{got.throughput_tokens_per_s:,.0f}"
    return [f"{got.requests:,}", f"{got.completed:,}", *latencies, tokens, *shares, f"{found.wall_s:.1f} s"]

"""What `millrace simulate` writes beside its answer: single requests, and a report to read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from millrace.cli.simulating.results import prices
from millrace.cli.simulating.runs import Ran
from millrace.cli.simulating.scenario import Scenario


def write_requests(path: Path, every: Sequence[Ran]) -> None:
    """Write one JSON line per request, policy and seed, in order of ending; not of runs at other prices."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as lines:
        for ran in every:
            if ran.task.step_scale != 1:
                continue
            about = {"policy": ran.task.label, "world": "simulated", "seed": ran.task.seed}
            for outcome in ran.found.outcomes:
                latencies = {
                    "ttft_s": outcome.ttft_s,
                    "tpot_s": outcome.tpot_s,
                    "e2e_s": outcome.e2e_s,
                }
                model = {"model": ran.task.scenario.asked[outcome.id]}
                line = about | msgspec.to_builtins(outcome) | model | latencies
                lines.write(encoder.encode(line) + b"\n")


def write_report(folder: Path, every: Sequence[Ran], scenario: Scenario) -> str:
    """Write the report of the main runs; return the words that say where it is."""
    # Here and not above: only those who ask for a report pay for its libraries.
    from millrace.bench.report import PolicyRuns, Run, RunReport, origin, write

    runs = [
        PolicyRuns(
            name=ran.task.label,
            simulated=Run(
                measured=ran.found.measured,
                outcomes=ran.found.outcomes,
                token_gap_s=ran.found.itl_s,
                occupancy=ran.found.occupancy,
            ),
        )
        for ran in every
        if ran.is_main
    ]
    report = RunReport(
        title=f"{scenario.fleet}, simulated",
        slo=scenario.objectives,
        seed=0,
        config=scenario.settings | {"prices": prices(scenario)},
        origin=origin(["millrace", *sys.argv[1:]]),
        policies=runs,
    )
    written = write(report, folder)
    return f"report  {written.html}\ndata    {written.json}  {written.requests}"

"""What a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.bench.report.model import Run, RunReport
from millrace.bench.report.units import duration, share

LAG_LIMIT_S = 0.005
ERROR_LIMIT = 0.01
SAMPLES_FOR_P99 = 100


def warnings(report: RunReport) -> list[str]:
    """Return one sentence for each reason for doubt, with the runs it is about."""
    about: dict[str, list[str]] = {}
    for policy, world, number, run in report.every():
        which = f" {number}" if policy.repeats else ""
        for doubt in _doubts(run):
            about.setdefault(doubt, []).append(f"{policy.name}, {world}{which}")
    runs = len(list(report.every()))
    return [f"{_who(names, runs)}: {doubt}" for doubt, names in about.items()] + list(_mismatches(report))


def _who(names: list[str], runs: int) -> str:
    return "every run" if len(names) == runs > 1 else "; ".join(names)


def _doubts(run: Run) -> Iterator[str]:
    measured = run.measured
    if run.client_lag_s and run.client_lag_s.p99 > LAG_LIMIT_S:
        late = duration(run.client_lag_s.p99)
        yield f"the client itself was late (p99 {late}); latencies include that. Use a quieter machine."
    for count, what in ((measured.failed, "failed"), (measured.refused, "were refused")):
        if count > ERROR_LIMIT * measured.requests:
            yield f"{share(count / measured.requests)} of the requests {what}; latencies are of the others."
    if measured.cancelled:
        yield f"{measured.cancelled} requests were cancelled or not sent; the run is not whole."
    if measured.completed < SAMPLES_FOR_P99:
        yield f"{measured.completed} completed requests are few; a p99 needs {SAMPLES_FOR_P99} or more."


def _mismatches(report: RunReport) -> Iterator[str]:
    for policy in report.policies:
        for live_run, simulated_run in zip(policy.all_of("live"), policy.all_of("simulated"), strict=False):
            live, simulated = live_run.measured.requests, simulated_run.measured.requests
            if live != simulated:
                yield f"{policy.name}: {live} requests live but {simulated} simulated; do not compare them."

"""Reports of runs: one HTML page, one JSON file, one line per request."""

from millrace.bench.report.files import Written, write
from millrace.bench.report.model import Origin, PolicyRuns, Repeat, Run, RunReport, repeated
from millrace.bench.report.origin import origin

__all__ = ["Origin", "PolicyRuns", "Repeat", "Run", "RunReport", "Written", "origin", "repeated", "write"]

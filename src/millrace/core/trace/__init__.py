"""Recorded workloads: one record type, a reader and a writer per file format, and arithmetic on traces."""

from millrace.core.trace.formats import Format, detect, read_trace, write_trace
from millrace.core.trace.inspect import TraceSummary, inspect
from millrace.core.trace.record import TraceError, TraceRecord
from millrace.core.trace.reshape import first, scale_lengths, scale_rate, window

__all__ = [
    "Format",
    "TraceError",
    "TraceRecord",
    "TraceSummary",
    "detect",
    "first",
    "inspect",
    "read_trace",
    "scale_lengths",
    "scale_rate",
    "window",
    "write_trace",
]

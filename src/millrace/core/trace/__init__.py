"""Recorded workloads: one record type, a reader and a writer per file format, and arithmetic on traces."""

from millrace.core.trace.record import TraceError, TraceRecord

__all__ = ["TraceError", "TraceRecord"]

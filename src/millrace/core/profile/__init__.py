"""Readers of what others measured: operator times of GPUs, and recorded runs of real engines."""

from millrace.core.profile.rows import read_rows
from millrace.core.profile.setup import Setup
from millrace.core.profile.tables import Tables

__all__ = ["Setup", "Tables", "read_rows"]

"""Millrace runs fleets of language-model engines; its decisions are policies you can simulate first."""

__version__ = "0.1.0"

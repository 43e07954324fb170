"""Measures an engine that is running somewhere, from outside."""

"""Routing policies under which every replica answers the prompts that it computes.

Those that have prompts computed elsewhere need a world that carries KV caches: see test_handover.py.
"""

from __future__ import annotations

from millrace.policies import load, names

WHOLE = [name for name in names("routing") if not getattr(load("routing", name), "splits", False)]

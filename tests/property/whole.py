"""Routing policies under which every replica answers the prompts that it computes, and all batching policies.

Those that have prompts computed elsewhere need a world that carries KV caches: see test_handover.py.
"""

from __future__ import annotations

from millrace.policies import load, names

WHOLE = [name for name in names("routing") if not getattr(load("routing", name), "splits", False)]

# Those that go by time have little enough of it here for that to matter.
BATCHINGS = [
    *names("batching"),
    "decode_first(beside=2)",
    "adaptive_budget(tpot_s=0.012, least_tokens=4)",
    "colocated(tpot_s=0.012, least_tokens=4)",
]

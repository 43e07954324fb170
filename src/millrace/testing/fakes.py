"""Small replicas, requests and fleets, built with only the fields a test is about."""

from __future__ import annotations

from typing import Any

from millrace.control.prefixes import SentPrefixes
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.replica.batch import Batch
from millrace.replica.sequence import Sequence


def request(id: str = "q", **fields: Any) -> Request:
    """A request for model "m" of 100 prompt tokens."""
    return Request(**{"id": id, "model": "m", "prompt_tokens": 100, "max_tokens": 16, **fields})


def replica(id: str, *, sent: tuple[Request, ...] = (), **fields: Any) -> ReplicaView:
    """A ready replica of model "m"; `sent` are requests whose blocks its prefix index remembers."""
    spec_fields = {k: fields.pop(k) for k in ReplicaSpec.__struct_fields__ if k in fields}
    spec = ReplicaSpec(**{"models": ("m",), **spec_fields})
    prefixes = SentPrefixes(1 << 20)
    for one in sent:
        prefixes.remember(one)
    return ReplicaView(**{"id": id, "spec": spec, "prefix": prefixes, "phase": "ready", **fields})


def fleet(*replicas: ReplicaView, **fields: Any) -> FleetView:
    """A view of these replicas at time 0."""
    return FleetView(**{"now_s": 0.0, "replicas": replicas, **fields})


def batch(running: dict[str, int], waiting: dict[str, int], *, step_tokens: int, sequences: int = 8) -> Batch:
    """A batch of sequences by the tokens they miss; the running ones that miss a single one decode."""
    made = Batch(Limits(step_tokens=step_tokens, sequences=sequences))
    for name, missing in {**running, **waiting}.items():
        made.enqueue(Sequence(name, prompt_tokens=missing, max_tokens=9))
    for name, missing in running.items():
        made.admit(made.known[name])
        if missing == 1:
            made.known[name].base = made.known[name].sampled = 1
            made.decode(made.known[name])
    return made

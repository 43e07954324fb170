"""Small replicas, requests and fleets, built with only the fields a test is about."""

from __future__ import annotations

from typing import Any

from millrace.control.prefixes import SentPrefixes
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Request


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

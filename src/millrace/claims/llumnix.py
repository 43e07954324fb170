"""Moving running requests between replicas cuts the tail of the time to first token that dispatch by load
leaves where memory is nearly full.

Measured on the shipped Azure trace (its first 8,000 requests), in which one answer in ten is made long (4,000
tokens), on eight simulated RTX 4090 with Llama-3-8B, whose KV caches are small; replicas report their memory
twice a second. Dispatch by freeness is held against round robin at the trace's own rate, and migration
against dispatch alone there and at the knee, 1.3 times that rate. The link carries 50 GB/s, and a request
stands still for its last stage only. Live engines are not part of this receipt.

Source: Sun et al., Llumnix: Dynamic Scheduling for Large Language Model Serving, OSDI 2024, arXiv:2406.03243.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.control import Controller
from millrace.core.draw import draw_below
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Measured
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord, scale_rate
from millrace.core.trace.reshape import first
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Surroundings, jobs_of, servers, simulate

KIND: Kind = "simulated"
FLEET = "8x rtx-4090 llama-3-8b max_num_batched_tokens=2048"
REQUESTS = 8000
LONG_TOKENS = 4000
ONE_IN = 10
KNEE = 1.3


def measure() -> list[Check]:
    """Simulate round robin, dispatch by freeness, and migration beside it, at two rates."""
    records = long_answers(first(open_trace("azure_conv_2023"), REQUESTS))
    turns, free = _run(records, "round_robin"), _run(records, "llumnix_freeness")
    moved = _run(records, "llumnix_freeness", migration="llumnix")
    knee = _run(records, "llumnix_freeness", rate=KNEE)
    knee_moved = _run(records, "llumnix_freeness", rate=KNEE, migration="llumnix")
    assert knee_moved.downtime_s is not None, "requests moved"
    return [
        Check(what="p99 TTFT, round robin over moved", value=_over(turns, moved), unit="x", at_least=3.0),
        Check(what="p99 TTFT, round robin over freeness", value=_over(turns, free), unit="x"),
        Check(
            what="p99 TTFT at the knee, stayed over moved",
            value=_over(knee, knee_moved),
            unit="x",
            at_least=1.2,
        ),
        Check(what="p99 TTFT elsewhere, moved over stayed", value=_over(moved, free), unit="x", at_most=1.25),
        Check(what="moves a request at the knee", value=knee_moved.moves_per_request),
        Check(what="standstill of a move", value=1000 * knee_moved.downtime_s.mean, unit=" ms"),
    ]


def long_answers(records: Iterable[TraceRecord]) -> list[TraceRecord]:
    """Make one answer in ten long, whichever a draw says."""
    return [
        replace(one, output_tokens=LONG_TOKENS) if not draw_below(ONE_IN, "long", one.id) else one
        for one in records
    ]


def _run(
    records: Sequence[TraceRecord], routing: str, *, rate: float = 1.0, migration: str | None = None
) -> Measured:
    groups = parse_fleet(FLEET)
    moves = None if migration is None else load("migration", migration)
    return simulate(
        jobs_of(scale_rate(records, rate), groups[0].model.name, Slo()),
        servers(groups),
        Controller(load("routing", routing), load("queueing", "fcfs"), migration=moves),
        load("batching", "split_fuse"),
        surroundings=Surroundings(scrape_s=0.5),
    ).measured


def _over(slow: Measured, fast: Measured) -> float:
    assert slow.ttft_s is not None, "requests were answered"
    assert fast.ttft_s is not None, "requests were answered"
    return slow.ttft_s.p99 / fast.ttft_s.p99

"""Two homes per prompt let a fleet keep its caches and its balance: more than twice the requests in time.

Measured on the shipped Mooncake trace of conversations with eight simulated replicas of Llama-3-8B, each on
two A100 (80 GB), as the highest rate at which 95 % of requests have their first token within 5 s, to 5 %
(10 % for the other two): `dualmap` against policies that take turns and that look at load only. (On single
A100s no policy attains 95 % at any rate, as 6 % of these prompts take longer than 5 s by themselves.) Then
its migration of queued requests, by the time to first token at the 99th percentile with and without it: near
saturation, which is the capacity just found, and at a moderate load, half of that. Each is run for the
arrivals on record and for others with gaps drawn anew, of which the middle and the worst ratio are told.
Scaling that moves only its share of prompts is a test of this project. The paper's own baselines and its
hardware are not here.

Source: DualMap: Enabling Both Cache Affinity and Load Balancing for Distributed LLM Serving,
arXiv:2602.06502.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from statistics import median

from millrace.claims import Check, Kind
from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord, scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Job, jobs_of, servers, simulate
from millrace.simulate.capacity import Probe, attempt, find_capacity
from millrace.simulate.repeat import redraw_arrivals

KIND: Kind = "simulated"
FLEET = "8x a100-80g llama-3-8b tp=2 max_model_len=131072 block_size=512 max_num_batched_tokens=8192"
SLO = Slo(ttft_s=5.0)
STARTS = {"round_robin": 2.0, "least_request": 4.0, "dualmap": 6.0}  # what is found does not depend on them
TOLERANCES = {"round_robin": 0.1, "least_request": 0.1, "dualmap": 0.05}
MODERATE = 0.5  # of the capacity
NEAR_SEEDS, MODERATE_SEEDS = (0, 1, 2), (0, 1)


def measure() -> list[Check]:
    """Search three capacities, and compare the tails with and without migration at the last and at half."""
    records = sorted(open_trace("mooncake_conversation"), key=attrgetter("t_s"))
    turns, least, dual = (capacity_rps(records, name) for name in STARTS)
    near = [gain(redraw_arrivals(records, seed), dual) for seed in NEAR_SEEDS]
    moderate = [gain(redraw_arrivals(records, seed), MODERATE * dual) for seed in MODERATE_SEEDS]
    ratio = "p99 TTFT, stayed over moved"
    return [
        Check(what="capacity, round_robin", value=turns, unit=" req/s"),
        Check(what="capacity, least_request", value=least, unit=" req/s"),
        Check(what="capacity, dualmap", value=dual, unit=" req/s"),
        Check(what="capacity, dualmap over round_robin", value=dual / turns, unit="x", at_least=2.5),
        Check(what="capacity, dualmap over least_request", value=dual / least, unit="x", at_least=1.15),
        Check(what=f"{ratio}, at the capacity", value=median(near), unit="x", at_least=1.1),
        Check(what=f"{ratio}, at the capacity, worst", value=min(near), unit="x", at_least=1.0),
        Check(what=f"{ratio}, at half of it, worst", value=min(moderate), unit="x", at_least=0.98),
    ]


def capacity_rps(records: Sequence[TraceRecord], routing: str) -> float:
    """Search the highest rate at which enough requests are in time."""

    def probe(rate_rps: float) -> Probe:
        return attempt(
            _jobs(records, rate_rps),
            servers(parse_fleet(FLEET)),
            _controller(routing),
            load("batching", "split_fuse"),
            slo=SLO,
            goal=0.95,
        )

    return find_capacity(probe, STARTS[routing], tolerance=TOLERANCES[routing]).capacity_rps


def gain(records: Sequence[TraceRecord], rate_rps: float) -> float:
    """Return by what factor migration shortens the 99th percentile."""
    stayed_s, moved_s = (_p99_s(records, rate_rps, migration) for migration in (None, "dualmap"))
    return stayed_s / moved_s


def _p99_s(records: Sequence[TraceRecord], rate_rps: float, migration: str | None) -> float:
    done = simulate(
        _jobs(records, rate_rps),
        servers(parse_fleet(FLEET)),
        _controller("dualmap", migration),
        load("batching", "split_fuse"),
        keep_outcomes=False,
    )
    assert done.measured.ttft_s is not None, "requests were answered"
    return done.measured.ttft_s.p99


def _controller(routing: str, migration: str | None = None) -> Controller:
    moves = None if migration is None else load("migration", migration)
    return Controller(load("routing", routing), load("queueing", "fcfs"), migration=moves)


def _jobs(records: Sequence[TraceRecord], rate_rps: float) -> list[Job]:
    recorded_rps = (len(records) - 1) / (records[-1].t_s - records[0].t_s)
    model = parse_fleet(FLEET)[0].model.name
    return list(jobs_of(scale_rate(records, rate_rps / recorded_rps), model, SLO))

"""Offline requests in the slack of online ones raise what a fleet serves, at the same objectives kept.

Measured on the shipped Azure trace of conversations at 2.2 times its pace: five minutes of it are online, and
offline requests with the lengths of a later part of it (priority -1) come faster than can be served, to four
simulated A100 (80 GB) with Llama-3-8B and the policy `colocated`. It is held against a fleet that is split,
three replicas for online requests and one for offline ones, by the tokens of offline requests that are done
within these minutes; and against four replicas without any offline request, by the share of online requests
that have their first token within 1 s and the others every 75 ms. Naive mixing, where everybody waits in one
line, does more offline work than either, and misses nearly all objectives. Here all replicas compute prompts
and answer; the paper's switching of roles, and its throughput against other engines on Ascend devices, are
not part of this receipt.

Source: xLLM Technical Report, arXiv:2510.14686.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import measure as measured
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord, scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate

KIND: Kind = "simulated"
FLEET = "{}x a100-80g llama-3-8b max_model_len=16384"
SLO = Slo(ttft_s=1.0, tpot_s=0.075)
RATE, OFFLINE_RPS = 2.2, 16
HORIZON_S = 300.0
LATER = 9000


class Found(Struct, frozen=True):
    """What came of a run: the share of online requests in time, and offline tokens a second."""

    attained: float
    online_tpot_p99_s: float
    offline_tokens_per_s: float


def measure() -> list[Check]:
    """Play both kinds of requests apart, mixed, and co-located."""
    recorded = list(open_trace("azure_conv_2023"))
    online = [record for record in scale_rate(recorded, RATE) if record.t_s < HORIZON_S]
    offline = offline_records(recorded[LATER:])
    alone = play(online, 4, "split_fuse")
    split, reserved = play(online, 3, "split_fuse"), play(offline, 1, "split_fuse")
    beside = play([*online, *offline], 4, "colocated")
    mixed = play([*online, *offline], 4, "split_fuse")
    return [
        Check(
            what="offline tokens, co-located over a replica of their own",
            value=beside.offline_tokens_per_s / reserved.offline_tokens_per_s,
            unit="x",
            at_least=1.5,
        ),
        Check(
            what="online objectives lost to offline requests",
            value=100 * (alone.attained - beside.attained),
            unit=" points",
            at_most=1,
        ),
        Check(what="online objectives met, no offline requests", value=100 * alone.attained, unit="%"),
        Check(what="online objectives met, split fleet", value=100 * split.attained, unit="%"),
        Check(what="online objectives met, co-located", value=100 * beside.attained, unit="%"),
        Check(what="online objectives met, naive mixing", value=100 * mixed.attained, unit="%"),
        Check(what="p99 online TPOT, no offline requests", value=1e3 * alone.online_tpot_p99_s, unit=" ms"),
        Check(what="p99 online TPOT, co-located", value=1e3 * beside.online_tpot_p99_s, unit=" ms"),
        Check(what="offline tokens a second, split fleet", value=reserved.offline_tokens_per_s),
        Check(what="offline tokens a second, co-located", value=beside.offline_tokens_per_s),
        Check(what="offline tokens a second, naive mixing", value=mixed.offline_tokens_per_s),
    ]


def offline_records(recorded: Sequence[TraceRecord]) -> list[TraceRecord]:
    """Return requests of these lengths at a steady rate, of a priority below 0."""
    count = int(HORIZON_S * OFFLINE_RPS)
    return [
        replace(record, id=f"offline {n}", t_s=n / OFFLINE_RPS, priority=-1)
        for n, record in enumerate(recorded[:count])
    ]


def play(records: Sequence[TraceRecord], count: int, batching: str) -> Found:
    """Play requests through so many replicas, which take turns."""
    groups = parse_fleet(FLEET.format(count))
    jobs = list(jobs_of(sorted(records, key=attrgetter("t_s")), groups[0].model.name, SLO))
    done = simulate(
        jobs,
        servers(groups),
        Controller(load("routing", "round_robin"), load("queueing", "fcfs")),
        load("batching", batching),
    )
    offline = {job.request.id for job in jobs if job.request.priority < 0}
    ended = [o for o in done.outcomes if o.id in offline and o.finished_s and o.finished_s <= HORIZON_S]
    online = measured([o for o in done.outcomes if o.id not in offline], SLO)
    return Found(
        attained=online.slo_attainment,
        online_tpot_p99_s=online.tpot_s.p99 if online.tpot_s else 0.0,
        offline_tokens_per_s=sum(o.prompt_tokens + o.output_tokens for o in ended) / HORIZON_S,
    )

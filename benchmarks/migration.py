"""When moving queued requests between their two homes pays, and what it costs where it does not.

    python benchmarks/migration.py [--settings 'cache_factor=4,cache_factor=16'] [--shares 0.5,1,1.2,1.3]
                                   [--seeds 0,1,2,3,4] [--jobs N]

The fleet and the trace of the receipt `dualmap`, at shares of its capacity for a first token within 5 s, for
the arrivals on record and for others drawn anew. Printed is, for each way to set the migration policy, by
what factor the 99th percentile of the time to first token is shorter with it than without, and how many
requests move. All figures are simulated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter
from statistics import fmean, median
from typing import NamedTuple

from millrace.claims.dualmap import FLEET, SLO
from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Measured
from millrace.core.trace import scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate
from millrace.simulate.repeat import redraw_arrivals

CAPACITY_RPS = 5.75  # what the receipt finds


class Run(NamedTuple):
    """One simulation: with `migration` None nothing moves."""

    migration: str | None
    share: float
    seed: int


def main() -> None:
    """Run everything and print a row for each setting and rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", default="cache_factor=4,cache_factor=16", help="with commas between")
    parser.add_argument("--shares", default="0.5,1,1.2,1.3", help="of the capacity")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of the arrivals; 0 are those on record")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    ways = [f"dualmap({one})" for one in args.settings.split(",")]
    shares, seeds = (
        [float(one) for one in args.shares.split(",")],
        [int(one) for one in args.seeds.split(",")],
    )
    runs = [Run(way, share, seed) for way in (None, *ways) for share in shares for seed in seeds]
    with ProcessPoolExecutor(args.jobs) as pool:
        found = dict(zip(runs, pool.map(measured, runs), strict=True))
    print("p99 TTFT, stayed over moved: median, worst and best; requests that move")
    for way in ways:
        for share in shares:
            print(row(found, way, share, seeds))


def row(found: dict[Run, Measured], way: str, share: float, seeds: Sequence[int]) -> str:
    """Return what one setting is worth at one rate."""
    moved = [found[Run(way, share, seed)] for seed in seeds]
    ratios = [
        p99_s(found[Run(None, share, seed)]) / p99_s(one) for seed, one in zip(seeds, moved, strict=True)
    ]
    moves = fmean(one.moves_per_request for one in moved)
    return (
        f"{way:28} {share:4.2f} of the capacity  {median(ratios):.3f}  "
        f"{min(ratios):.3f}  {max(ratios):.3f}  {moves:.2%}"
    )


def measured(run: Run) -> Measured:
    """Simulate one run."""
    records = sorted(open_trace("mooncake_conversation"), key=attrgetter("t_s"))
    records = redraw_arrivals(records, run.seed)
    recorded_rps = (len(records) - 1) / (records[-1].t_s - records[0].t_s)
    faster = run.share * CAPACITY_RPS / recorded_rps
    groups = parse_fleet(FLEET)
    moves = None if run.migration is None else load("migration", run.migration)
    return simulate(
        jobs_of(scale_rate(records, faster), groups[0].model.name, SLO),
        servers(groups),
        Controller(load("routing", "dualmap"), load("queueing", "fcfs"), migration=moves),
        load("batching", "split_fuse"),
        keep_outcomes=False,
    ).measured


def p99_s(run: Measured) -> float:
    """Return the 99th percentile of the time to first token."""
    assert run.ttft_s is not None, "requests were answered"
    return run.ttft_s.p99


if __name__ == "__main__":
    main()

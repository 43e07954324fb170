"""Calibrates the embedded engine from outside, then holds a simulation with these prices against the engine.

    python benchmarks/calibration.py [--budget SECONDS] [--requests N] [--speed X] [--repeats N]

The slice that is played is of a recorded trace and has nothing to do with the points that were fitted. Every
repeat calibrates anew, because the speed of a shared machine drifts. Errors are signed shares of the live
figure: -0.01 is a simulation that is 1 % faster than the engine was. The spread is that of the live figure.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from millrace.bench.calibrate.client import Client
from millrace.bench.calibrate.live import Asked, measure
from millrace.bench.demo import calibrate, live
from millrace.bench.demo.predicted import Calibration, predict, replica_spec
from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.demo.workload import plan, probes
from millrace.core.calibration import fitted
from millrace.core.cost import Linear
from millrace.core.outcome import Measured

FIGURES = [(f"{metric}_s", point) for metric in ("ttft", "tpot", "e2e") for point in ("p50", "p99")]
ROUTING = "round_robin"


async def calibrated(settings: DemoSettings, budget_s: float) -> Linear:
    """Start an engine, measure it from outside, and stop it."""
    async with live.calibration_fleet(settings) as fleet, Client(fleet.engines[0].url) as client:
        asked = Asked(
            model=MODEL,
            context_tokens=settings.limits.context_tokens,
            step_tokens=settings.limits.step_tokens,
            budget_s=budget_s,
        )
        measured = await measure(client, asked, lambda *_: None)
    found = fitted(measured.samples, source="benchmark")
    print(f"{measured.rounds} rounds, {len(measured.missed)} points missed; held-out: {found.errors}")
    print(f"expected error: {found.cost.expected_error}")
    return found.cost


async def played(settings: DemoSettings, cost: Linear) -> tuple[Measured, Measured]:
    """Play the slice once, live and simulated."""
    planned = plan(settings)
    async with live.fleet(settings, ROUTING, replica_spec(cost, settings.limits)) as fleet:
        answered = await live.send(fleet.gateway.url, probes(settings, "probe", 24))
        overhead_s = calibrate.overhead_s(answered.outcomes, cost)
        real = await live.play(fleet.gateway.url, planned, settings.slo, lambda _: None)
    prices = Calibration(cost=cost, slowdowns=(1.0,), overhead_s=overhead_s)
    return real.measured, predict(settings, ROUTING, planned, prices).measured


async def compare(settings: DemoSettings, *, budget_s: float, repeats: int) -> None:
    """Print every figure of the slice, live and simulated: the median of the repeats."""
    runs = [await played(settings, await calibrated(settings, budget_s)) for _ in range(repeats)]
    print(f"{'figure':12}{'live':>10}{'spread':>9}{'simulated':>11}{'error':>8}")
    for metric, point in FIGURES:
        pairs = [[getattr(getattr(world, metric), point) for world in worlds] for worlds in runs]
        seen, said = zip(*pairs, strict=True)
        spread = (max(seen) - min(seen)) / median(seen)
        error = median(simulated / live - 1 for live, simulated in pairs)
        print(f"{metric + ' ' + point:12}{median(seen):10.4f}{spread:9.1%}{median(said):11.4f}{error:+8.1%}")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds to calibrate for")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--speed", type=float, default=0.5, help="how many times as fast as recorded")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        settings = DemoSettings(out=Path(folder), engines=1, requests=asked.requests, speed=asked.speed)
        asyncio.run(compare(settings, budget_s=asked.budget, repeats=asked.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Holds simulations against real engines on this machine: priced from outside, and by the demo's rehearsals.

    python benchmarks/calibration.py [--budget SECONDS] [--requests N] [--repeats N] [--write FILE]

First one engine: `millrace calibrate`'s measurement before and after a slice of a recorded trace, which has
nothing to do with the points that are fitted. Then the demo's whole fleet. Errors are signed shares of the
live figure: -0.01 is a simulation that is 1 % faster than the engines were. Every figure is the median of the
repeats; its spread is from the lowest to the highest live one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from millrace.bench.calibrate.client import Client
from millrace.bench.calibrate.live import Asked, measure
from millrace.bench.demo import live
from millrace.bench.demo.calibrate import overhead_s
from millrace.bench.demo.predicted import Calibration, predict, replica_spec
from millrace.bench.demo.run import run_demo
from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.demo.workload import plan, warming
from millrace.bench.report import PolicyRuns, Repeat, origin, repeated
from millrace.bench.report.metrics import METRICS, differences
from millrace.core.calibration import Fitted, Sample, Shared, fitted
from millrace.core.cost import Linear, StepShape
from millrace.launch import Fleet

ROUTING = "round_robin"
_ONE = StepShape(decodes=1, emits=1)


class Quiet:
    """Progress on stderr, without bars."""

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=sys.stderr, flush=True)

    def counting(self, what: str, total: int) -> Any:
        """Count nothing."""
        return lambda _: None


async def measured(fleet: Fleet, settings: DemoSettings, budget_s: float) -> list[Sample]:
    """Measure the fleet's first engine from outside."""
    asked = Asked(
        model=MODEL,
        context_tokens=settings.limits.context_tokens,
        step_tokens=settings.limits.step_tokens,
        budget_s=budget_s,
    )
    async with Client(fleet.engines[0].url) as client:
        return (await measure(client, asked, lambda *_: None)).samples


async def once(settings: DemoSettings, repeat: int, budget_s: float) -> tuple[Repeat, Fitted]:
    """Calibrate, play the slice, calibrate again; simulate with prices fitted to both calibrations."""
    Quiet().say(f"one engine, repeat {repeat}: calibrating from outside for {budget_s:g} s, twice")
    planned, probes = plan(settings), warming(settings, 24)
    async with live.fleet(settings, repeat) as fleet:
        samples = await measured(fleet, settings, budget_s)
        spec = replica_spec(fitted(samples, source="benchmark").cost, settings.limits)
        answered = await live.send(fleet.gateway.url, probes)
        await fleet.switch_gateway(live.gateway(settings, ROUTING, repeat, spec))
        real = await live.play(fleet.gateway.url, planned, settings.slo, lambda _: None)
        samples += await measured(fleet, settings, budget_s)
    found = fitted(samples, source="benchmark")
    idle = predict(settings, ROUTING, probes, _priced(found.cost), spec=spec, repeat=repeat)
    prices = _priced(found.cost, overhead_s(answered.outcomes, idle.outcomes))
    simulated = predict(settings, ROUTING, planned, prices, spec=spec, repeat=repeat)
    return Repeat(live=real, simulated=simulated), found


def _priced(cost: Linear, way_s: float = 0.0) -> Calibration:
    """Prices without company and without scatter: a calibration from outside knows of neither."""
    return Calibration(prices=Shared(cost=cost, slowdowns=(1.0,)), off_by=[(_ONE, 1.0)], overhead_s=way_s)


async def from_outside(settings: DemoSettings, *, budget_s: float, repeats: int) -> dict[str, Any]:
    """Compare one engine with its simulation."""
    runs = [await once(settings, number, budget_s) for number in range(1, repeats + 1)]
    errors = [{"expected": found.cost.error, "mean_by_kind": found.errors} for _, found in runs]
    policy = repeated(ROUTING, [both for both, _ in runs])
    return {"requests": settings.requests, "held_out_errors": errors, **compared(policy)}


async def demo(settings: DemoSettings) -> dict[str, Any]:
    """Run the demo, and return what its report says."""
    report, _ = await run_demo(settings, Quiet())
    policies = {policy.name: compared(policy) for policy in report.policies}
    return {
        "requests": settings.requests,
        "policies": policies,
        "calibrations": report.config["calibrations"],
    }


def compared(policy: PolicyRuns) -> dict[str, Any]:
    """Return every figure, live and simulated, and print them; refuse runs that did not answer everything."""
    for run in policy.all_of("live"):
        if run.measured.completed < run.measured.requests:
            raise SystemExit(f"{policy.name}: {run.measured.completed} of {run.measured.requests} completed")
    found = differences(policy)
    print(
        f"{policy.name:16}{'live':>10}{'lowest':>10}{'highest':>10}{'simulated':>11}{'error':>10}  in spread"
    )
    for metric, one in zip(METRICS, found, strict=True):
        values = f"{one.live:10.4f}{one.live_low:10.4f}{one.live_high:10.4f}{one.simulated:11.4f}"
        print(f"{metric.name:16}{values}{one.text:>10}  {'yes' if one.within else 'no'}")
    rows = [{**msgspec.to_builtins(one), "within": one.within} for one in found]
    return {"repeats": len(policy.all_of("live")), "figures": rows}


async def everything(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both halves."""
    alone = DemoSettings(out=folder / "one", engines=1, requests=asked.requests, speed=asked.speed)
    fleet = DemoSettings(out=folder / "demo", repeats=asked.repeats)
    return {
        "from_outside": await from_outside(alone, budget_s=asked.budget, repeats=asked.repeats),
        "demo": await demo(fleet),
    }


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of each calibration from outside")
    parser.add_argument("--requests", type=int, default=120, help="requests of the slice of one engine")
    parser.add_argument("--speed", type=float, default=0.5, help="how many times as fast as recorded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, help="write everything to this JSON file")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = asyncio.run(everything(asked, Path(folder)))
    if asked.write:
        made = {"origin": origin(["python", *sys.argv]), **found}
        asked.write.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

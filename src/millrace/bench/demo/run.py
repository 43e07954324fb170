"""The demo from beginning to end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import asdict

from millrace.bench.demo import calibrate, live
from millrace.bench.demo.predicted import Calibration, cores, predict, replica_spec
from millrace.bench.demo.settings import TRACE, DemoSettings
from millrace.bench.demo.workload import measuring, plan, probes
from millrace.bench.prompts import Planned
from millrace.bench.report import PolicyRuns, RunReport, Written, origin, write
from millrace.core.cost import Linear
from millrace.core.outcome import Outcome


class Progress(Protocol):
    """Tells the person who waits what is going on."""

    def say(self, line: str) -> None:
        """Tell one line."""

    def counting(self, what: str, total: int) -> Callable[[Outcome], None]:
        """Begin to count something, and return what counts one."""


async def run_demo(settings: DemoSettings, progress: Progress) -> tuple[RunReport, Written]:
    """Measure this machine, play the slice under every policy, simulated and live, and write the report."""
    settings.out.mkdir(parents=True, exist_ok=True)
    planned = plan(settings)
    progress.say(f"measuring a step of the demo engine on this machine ({cores():.0f} cores)")
    cost = await _calibrated(settings)
    progress.say(f"  fitted to {cost.error.fitted if cost.error else 0} steps; error {cost.expected_error}")
    policies = [await _compare(settings, name, planned, cost, progress) for name in settings.routing]
    report = _report(settings, policies, cost)
    return report, write(report, settings.out)


async def _calibrated(settings: DemoSettings) -> Linear:
    """Load one engine alone and fit the cost model to its steps."""
    folder = settings.out / "logs" / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "steps.jsonl"
    log.unlink(missing_ok=True)
    async with live.lone_engine(settings, folder, step_log=log) as url:
        await live.send(url, probes(settings, "warm", 20))
        warm = len(calibrate.read_steps(log))
        await live.send(url, measuring(settings))
    return calibrate.fitted(calibrate.read_steps(log)[warm:])


async def _compare(
    settings: DemoSettings, routing: str, planned: list[Planned], cost: Linear, progress: Progress
) -> PolicyRuns:
    progress.say(f"{routing}: starting {settings.engines} engines and the gateway")
    async with live.fleet(settings, routing, replica_spec(cost, settings.limits)) as fleet:
        url = fleet.gateway.url
        answered = await live.send(url, probes(settings, "probe", 24))
        overhead_s = calibrate.overhead_s(answered.outcomes, cost)
        simulated = predict(settings, routing, planned, Calibration(cost=cost, overhead_s=overhead_s))
        counted = progress.counting(f"{routing}: requests answered", len(planned))
        real = await live.play(url, planned, settings.slo, counted)
    return PolicyRuns(name=routing, live=real, simulated=simulated)


def _report(settings: DemoSettings, policies: list[PolicyRuns], cost: Linear) -> RunReport:
    config = {name: value for name, value in asdict(settings).items() if name != "out"}
    config |= {"trace": TRACE, "cost_model": cost.to_dict()}
    return RunReport(
        title="A small fleet, live and simulated",
        slo=settings.slo,
        seed=settings.seed,
        config=config,
        origin=origin(["millrace", *sys.argv[1:]]),
        policies=policies,
    )

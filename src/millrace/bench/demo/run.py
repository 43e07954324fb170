"""The demo from beginning to end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import asdict

from millrace.bench.demo import calibrate, live
from millrace.bench.demo.predicted import Calibration, predict, replica_spec
from millrace.bench.demo.settings import TRACE, DemoSettings
from millrace.bench.demo.workload import crowding, measuring, plan, probes
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
    progress.say("measuring what a step of the demo engine takes on this machine, alone and beside others")
    cost, slowdowns = await _calibrated(settings)
    shown = ", ".join(f"{n} busy x{factor:.2f}" for n, factor in enumerate(slowdowns, 1))
    progress.say(
        f"  fitted to {cost.error.fitted if cost.error else 0} steps; error {cost.expected_error}; {shown}"
    )
    policies = [
        await _compare(settings, name, planned, (cost, slowdowns), progress) for name in settings.routing
    ]
    report = _report(settings, policies, cost, slowdowns)
    return report, write(report, settings.out)


async def _calibrated(settings: DemoSettings) -> tuple[Linear, tuple[float, ...]]:
    """Load one engine alone, then all of them, and return the price of a step and the slowdowns."""
    paths = [live.step_log(settings.out, n) for n in range(settings.engines)]
    async with live.calibration_fleet(settings) as fleet:
        for number, process in enumerate(fleet.engines):
            await live.send(process.url, probes(settings, f"warm-{number}", 16))
        warm = [len(calibrate.read_steps(path)) for path in paths]
        await live.send(fleet.engines[0].url, measuring(settings))
        alone = len(calibrate.read_steps(paths[0]))
        await live.send(fleet.gateway.url, crowding(settings))
    logs = [calibrate.read_steps(path) for path in paths]
    cost = calibrate.fitted(logs[0][warm[0] : alone])
    together = [logs[0][alone:], *(log[skip:] for log, skip in zip(logs[1:], warm[1:], strict=True))]
    return cost, calibrate.slowdowns(together, cost)


async def _compare(
    settings: DemoSettings,
    routing: str,
    planned: list[Planned],
    calibrated: tuple[Linear, tuple[float, ...]],
    progress: Progress,
) -> PolicyRuns:
    cost, slowdowns = calibrated
    progress.say(f"{routing}: starting {settings.engines} engines and the gateway")
    async with live.fleet(settings, routing, replica_spec(cost, settings.limits)) as fleet:
        url = fleet.gateway.url
        answered = await live.send(url, probes(settings, "probe", 24))
        overhead_s = calibrate.overhead_s(answered.outcomes, cost)
        measured = Calibration(cost=cost, slowdowns=slowdowns, overhead_s=overhead_s)
        simulated = predict(settings, routing, planned, measured)
        counted = progress.counting(f"{routing}: requests answered", len(planned))
        real = await live.play(url, planned, settings.slo, counted)
    return PolicyRuns(name=routing, live=real, simulated=simulated)


def _report(
    settings: DemoSettings, policies: list[PolicyRuns], cost: Linear, slowdowns: tuple[float, ...]
) -> RunReport:
    config = {name: value for name, value in asdict(settings).items() if name != "out"}
    config |= {"trace": TRACE, "cost_model": cost.to_dict(), "slowdowns": slowdowns}
    return RunReport(
        title="A small fleet, live and simulated",
        slo=settings.slo,
        seed=settings.seed,
        config=config,
        origin=origin(["millrace", *sys.argv[1:]]),
        policies=policies,
    )

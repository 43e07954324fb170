"""The demo from beginning to end."""

from __future__ import annotations

import sys
from asyncio import gather
from collections.abc import Callable
from typing import Any, Protocol

from msgspec.structs import asdict

from millrace.bench.demo import live
from millrace.bench.demo.calibrate import timed
from millrace.bench.demo.predicted import Calibration, Rehearsal, calibrated, predict, replica_spec
from millrace.bench.demo.settings import TRACE, DemoSettings
from millrace.bench.demo.workload import plan, rehearsal, warming
from millrace.bench.report import Repeat, Run, RunReport, Written, origin, repeated, write
from millrace.core.calibration import fit_shared
from millrace.core.outcome import Outcome
from millrace.core.replica import ReplicaSpec
from millrace.launch import Fleet

_WARMING = 8


class Progress(Protocol):
    """Tells the person who waits what is going on."""

    def say(self, line: str) -> None:
        """Tell one line."""

    def counting(self, what: str, total: int) -> Callable[[Outcome], None]:
        """Begin to count something, and return what counts one."""


async def run_demo(settings: DemoSettings, progress: Progress) -> tuple[RunReport, Written]:
    """Play the slice under every policy, again and again, live and simulated, and write the report."""
    settings.out.mkdir(parents=True, exist_ok=True)
    played: dict[str, list[Repeat]] = {name: [] for name in settings.routing}
    calibrations: list[dict[str, Any]] = []
    for number in range(1, settings.repeats + 1):
        progress.say(f"repeat {number} of {settings.repeats}: starting {settings.engines} engines")
        once = _Once(settings, number)
        await once.play(progress)
        for routing, (both, calibration) in once.predicted().items():
            played[routing].append(both)
            calibrations.append({"repeat": number, "routing": routing, **_told(calibration)})
            progress.say(f"  {routing}: {_described(calibration)}")
    report = _report(settings, played, calibrations)
    return report, write(report, settings.out)


class _Once:
    """One repeat: every policy plays the slice once, on the same engines, with a rehearsal before and after.

    Both rehearsals price the simulation of what was played between them, as the machine's speed drifts.
    """

    def __init__(self, settings: DemoSettings, repeat: int) -> None:
        self._settings = settings
        self._repeat = repeat
        self._rehearsals: list[Rehearsal] = []  # two for each policy
        self._live: list[Run] = []
        self._specs: list[ReplicaSpec] = []

    async def play(self, progress: Progress) -> None:
        """Play everything live."""
        settings = self._settings
        async with live.fleet(settings, self._repeat) as fleet:
            await gather(*(live.send(one.url, warming(settings, _WARMING)) for one in fleet.engines))
            for number, routing in enumerate(settings.routing):
                counted = progress.counting(f"  {routing}: requests answered", settings.requests)
                if number:
                    await fleet.switch_gateway(live.rehearsing(settings, routing))
                await self._rehearse(fleet)
                await self._perform(fleet, number, counted)
                await fleet.switch_gateway(live.rehearsing(settings, routing))
                await self._rehearse(fleet)

    def predicted(self) -> dict[str, tuple[Repeat, Calibration]]:
        """Simulate what was played; the fleet is gone, so this disturbs nobody."""
        found = {}
        for number, routing in enumerate(self._settings.routing):
            around = self._rehearsals[2 * number : 2 * number + 2]
            calibration = calibrated(self._settings, routing, around)
            simulated = predict(
                self._settings,
                routing,
                plan(self._settings, number),
                calibration,
                spec=self._specs[number],
                repeat=self._repeat,
            )
            found[routing] = Repeat(live=self._live[number], simulated=simulated), calibration
        return found

    async def _rehearse(self, fleet: Fleet) -> None:
        before = live.steps_so_far(self._settings, self._repeat)
        planned = rehearsal(self._settings, len(self._rehearsals))
        sent = await live.send(fleet.gateway.url, planned)
        after = live.steps_so_far(self._settings, self._repeat)
        steps = timed([log[len(known) :] for log, known in zip(after, before, strict=True)])
        self._rehearsals.append(Rehearsal(planned=planned, outcomes=sent.outcomes, steps=steps))

    async def _perform(self, fleet: Fleet, number: int, counted: Callable[[Outcome], None]) -> None:
        settings, routing = self._settings, self._settings.routing[number]
        prices = fit_shared(self._rehearsals[-1].steps, engines=settings.engines)
        spec = replica_spec(prices.cost, settings.limits)
        await fleet.switch_gateway(live.gateway(settings, routing, self._repeat, spec))
        self._specs.append(spec)
        self._live.append(await live.play(fleet.gateway.url, plan(settings, number), settings.slo, counted))


def _described(calibration: Calibration) -> str:
    factors = ", ".join(f"{n} busy x{factor:.2f}" for n, factor in enumerate(calibration.prices.slowdowns, 1))
    cost = calibration.prices.cost
    return f"priced by {len(calibration.off_by)} steps of rehearsals; error {cost.expected_error}; {factors}"


def _told(calibration: Calibration) -> dict[str, Any]:
    prices = calibration.prices
    return {
        "cost_model": prices.cost.to_dict(),
        "slowdowns": prices.slowdowns,
        "overhead_s": calibration.overhead_s,
        "steps": len(calibration.off_by),
    }


def _report(
    settings: DemoSettings, played: dict[str, list[Repeat]], calibrations: list[dict[str, Any]]
) -> RunReport:
    config = {name: value for name, value in asdict(settings).items() if name != "out"}
    return RunReport(
        title="A small fleet, live and simulated",
        slo=settings.slo,
        seed=settings.seed,
        config=config | {"trace": TRACE, "calibrations": calibrations},
        origin=origin(["millrace", *sys.argv[1:]]),
        policies=[repeated(name, repeats) for name, repeats in played.items()],
    )

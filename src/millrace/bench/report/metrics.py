"""The numbers by which policies are compared, defined once for tables, files and the simulation's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from statistics import median
from typing import Literal

from msgspec import Struct

from millrace.bench.report.model import PolicyRuns, World
from millrace.bench.report.units import signed_points, signed_share
from millrace.core.outcome import Measured

Unit = Literal["ms", "req/s", "tok/s", "%", ""]

_SCALE: dict[Unit, float] = {"ms": 1e3, "req/s": 1, "tok/s": 1, "%": 100, "": 1}


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run, alone or, in tables, with others under the heading of its group.

    `read` gives it in SI units or as a ratio, and None where the run has none.
    """

    key: str
    group: str
    label: str
    unit: Unit
    read: Callable[[Measured], float | None]

    @property
    def name(self) -> str:
        """What it is called outside of a table's header."""
        return f"{self.group} {self.label}".strip()

    def shown(self, measured: Measured) -> float | None:
        """Return the number in its unit."""
        value = self.read(measured)
        return None if value is None else value * _SCALE[self.unit]


class Difference(Struct, frozen=True, kw_only=True):
    """How far a simulation is from reality: relative to the live value, or for shares in absolute terms.

    Of several repeats, both values are medians, and the live ones lay between `live_low` and `live_high`.
    """

    metric: str
    live: float
    simulated: float
    live_low: float
    live_high: float
    relative: float | None = None
    absolute: float | None = None

    @property
    def within(self) -> bool:
        """Whether reality was as far off as the simulation, on one side and on the other."""
        return self.live_low <= self.simulated <= self.live_high

    @property
    def percent(self) -> float | None:
        """In per cent of the live value, or for shares in percentage points."""
        value = self.absolute if self.relative is None else self.relative
        return None if value is None else value * 100

    @property
    def text(self) -> str:
        """The difference with its sign and unit."""
        return signed_points(self.absolute) if self.relative is None else signed_share(self.relative)


def _latency(name: str, label: str, point: str) -> Metric:
    def read(measured: Measured) -> float | None:
        summary = getattr(measured, f"{name}_s")
        return None if summary is None else float(getattr(summary, point))

    return Metric(f"{name}_{point}_s", label, point, "ms", read)


def _plain(key: str, group: str, unit: Unit) -> Metric:
    return Metric(key, group, "", unit, attrgetter(key))


REQUESTS = _plain("requests", "sent", "")
METRICS = (
    _plain("throughput_rps", "rate", "req/s"),
    _latency("ttft", "TTFT", "p50"),
    _latency("ttft", "TTFT", "p90"),
    _latency("ttft", "TTFT", "p99"),
    _latency("tpot", "TPOT", "p50"),
    _latency("tpot", "TPOT", "p99"),
    _latency("e2e", "E2E", "p50"),
    _latency("e2e", "E2E", "p99"),
    _plain("cache_hit_ratio", "cache hit", "%"),
    _plain("slo_attainment", "SLO met", "%"),
)


def values(metric: Metric, policy: PolicyRuns, world: World) -> list[float]:
    """Return the number of every repeat in this world that has it."""
    known = (metric.read(run.measured) for run in policy.all_of(world))
    return [value for value in known if value is not None]


def lines(policy: PolicyRuns) -> Iterator[tuple[str, list[float | None]]]:
    """Yield the rows of a comparison: what each is called, and REQUESTS and METRICS in their units.

    Of repeats a world's row holds medians, and that of the live ones is followed by their extremes.
    """
    for world, _ in policy.worlds():
        yield world, _line(policy, world, median)
        if world == "live" and policy.repeats:
            yield "lowest", _line(policy, world, min)
            yield "highest", _line(policy, world, max)


def within(policy: PolicyRuns) -> list[str]:
    """Return for each of METRICS whether the simulation lay between the live repeats; empty without any."""
    if not policy.repeats:
        return []
    found = [difference(metric, policy) for metric in METRICS]
    return ["" if one is None else "yes" if one.within else "no" for one in found]


def _line(policy: PolicyRuns, world: World, of: Callable[[list[float]], float]) -> list[float | None]:
    known = [(metric, values(metric, policy, world)) for metric in (REQUESTS, *METRICS)]
    return [of(found) * _SCALE[metric.unit] if found else None for metric, found in known]


def difference(metric: Metric, policy: PolicyRuns) -> Difference | None:
    """Compare a policy's simulated runs with its live ones; None unless both have the number."""
    real, predicted = values(metric, policy, "live"), values(metric, policy, "simulated")
    if not (real and predicted):
        return None
    live, simulated = median(real), median(predicted)
    shares = metric.unit == "%"
    return Difference(
        metric=metric.key,
        live=live,
        simulated=simulated,
        live_low=min(real),
        live_high=max(real),
        relative=simulated / live - 1 if live and not shares else None,
        absolute=simulated - live if shares else None,
    )


def differences(policy: PolicyRuns) -> list[Difference]:
    """Return every difference there is."""
    return [found for metric in METRICS if (found := difference(metric, policy))]

"""The numbers by which policies are compared, defined once for tables, files and the simulation's errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from msgspec import Struct

from millrace.bench.report.model import PolicyRuns
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
    """How far a simulation is from reality: relative to the live value, or for shares in absolute terms."""

    metric: str
    live: float
    simulated: float
    relative: float | None = None
    absolute: float | None = None

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


def difference(metric: Metric, policy: PolicyRuns) -> Difference | None:
    """Compare a policy's simulated run with its live one; None unless both have the number."""
    if policy.live is None or policy.simulated is None:
        return None
    live, simulated = metric.read(policy.live.measured), metric.read(policy.simulated.measured)
    if live is None or simulated is None:
        return None
    if metric.unit == "%":
        return Difference(metric=metric.key, live=live, simulated=simulated, absolute=simulated - live)
    relative = simulated / live - 1 if live else None
    return Difference(metric=metric.key, live=live, simulated=simulated, relative=relative)


def differences(policy: PolicyRuns) -> list[Difference]:
    """Return every difference there is."""
    return [found for metric in METRICS if (found := difference(metric, policy))]

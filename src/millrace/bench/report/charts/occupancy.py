"""How full the simulated fleet was over virtual time: a row of three panels per policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from operator import attrgetter

from millrace.bench.report.charts.figure import Figure, colour, replica_legend, small_panel
from millrace.bench.report.charts.frame import (
    LEFT_PX,
    SMALL_RIGHT_PX,
    TOP_PX,
    Point,
    area,
    marker,
    steps,
    x_axis,
    y_axis,
)
from millrace.bench.report.markup import element
from millrace.bench.report.model import PolicyRuns
from millrace.bench.report.scale import Scale, linear
from millrace.bench.report.units import share, tick
from millrace.core.stats import mean
from millrace.simulate.occupancy import Occupancy, Shares

_HEIGHT_PX, _BASELINE_PX = 190, 148
_FEW = 4
_KINDS: dict[str, Callable[[Shares], list[float]]] = {
    "time busy": attrgetter("busy"),
    "sequences running": attrgetter("running"),
    "KV cache in use": attrgetter("kv"),
}
_EACH = "Shares of the time, of the sequences that may run and of the KV cache; a mark is at each one's peak."
_MANY = "Shares of the time, of the sequences that may run and of the KV cache: the mean of all replicas, {}"
_BAND = "and from the least used to the most used one."


def occupancy(policies: Sequence[PolicyRuns]) -> Figure | None:
    """Draw each simulated replica's shares, or of many their mean and extremes; None if nobody watched."""
    watched = ((p.name, p.simulated.occupancy) for p in policies if p.simulated)
    known = [(name, found) for name, found in watched if found and found.end_s]
    if not known:
        return None
    names = list(known[0][1].replicas)
    x = linear([found.end_s for _, found in known], LEFT_PX, SMALL_RIGHT_PX)
    few = len(names) <= _FEW
    return Figure(
        title="How full the fleet was",
        note=_EACH if few else _MANY.format(_BAND),
        legend=replica_legend(names) if few and len(names) > 1 else "",
        panels=[
            _panel(f"{policy}: {kind}", found, x, _scale(kind, known), (kind, colour(i)))
            for i, (policy, found) in enumerate(known)
            for kind in _KINDS
        ],
        columns=["policy", "replica", *(f"{kind}, {which}" for kind in _KINDS for which in ("mean", "peak"))],
        rows=[row for policy, found in known for row in _told(policy, found)],
    )


def _scale(kind: str, known: Sequence[tuple[str, Occupancy]]) -> Scale:
    """One scale per kind for all policies; a fleet that is hardly used still fills its chart."""
    every = chain.from_iterable(_KINDS[kind](one) for _, found in known for one in found.replicas.values())
    return linear([1.0] if kind == "time busy" else every, _BASELINE_PX, TOP_PX + 6)


def _panel(heading: str, found: Occupancy, x: Scale, y: Scale, drawn: tuple[str, str]) -> str:
    kind, policy_colour = drawn
    curves = [_KINDS[kind](one) for one in found.replicas.values()]
    if len(curves) <= _FEW:
        names = [policy_colour] if len(curves) == 1 else [colour(k) for k in range(len(curves))]
        lines = [
            element("g", _curve(found, values, x, y), _peak(k, found, values, (x, y)), class_=name)
            for k, (values, name) in enumerate(zip(curves, names, strict=True))
        ]
    else:
        lines = [element("g", *_band(found, curves, x, y), class_=policy_colour)]
    axes = y_axis(y, share, "share", about=3, right_px=SMALL_RIGHT_PX)
    axes += x_axis(x, _BASELINE_PX, tick, "virtual time")
    label = f"Over virtual time, under {heading}"
    return small_panel(axes, *lines, height_px=_HEIGHT_PX, label=label, heading=heading)


def _band(found: Occupancy, curves: Sequence[list[float]], x: Scale, y: Scale) -> tuple[str, str]:
    bins = list(zip(*curves, strict=True))
    least, most = ([at(values) for values in bins] for at in (min, max))
    across = area(_corners(found, most, x, y), _corners(found, least, x, y), "third")
    return across, _curve(found, [mean(values) for values in bins], x, y)


def _curve(found: Occupancy, values: Sequence[float], x: Scale, y: Scale) -> str:
    return steps(_points(found, values, x, y), "line")


def _points(found: Occupancy, values: Sequence[float], x: Scale, y: Scale) -> list[Point]:
    """Where each bin begins, and where the last one ends."""
    begins = [(x.at(place * found.bin_s), y.at(value)) for place, value in enumerate(values)]
    return [*begins, (x.at(found.end_s), begins[-1][1])]


def _corners(found: Occupancy, values: Sequence[float], x: Scale, y: Scale) -> list[Point]:
    points = _points(found, values, x, y)
    return [points[0], *(corner for a, b in pairwise(points) for corner in ((b[0], a[1]), b))]


def _peak(index: int, found: Occupancy, values: Sequence[float], scales: tuple[Scale, Scale]) -> str:
    """A mark in the middle of the fullest bin: who it is must not hang on colour alone."""
    x, y = scales
    fullest = max(range(len(values)), key=values.__getitem__)
    middle_s = min((fullest + 0.5) * found.bin_s, found.end_s)
    return marker(index, x.at(middle_s), y.at(values[fullest]))


def _told(policy: str, found: Occupancy) -> list[list[str]]:
    """One row per replica, or of many their mean, the least busy and the most busy one."""
    replicas = found.replicas
    if len(replicas) > _FEW:
        least, *_, most = sorted(replicas, key=lambda name: sum(replicas[name].busy))
        replicas = {
            f"mean of {len(replicas)}": _mean_of(list(replicas.values())),
            f"least busy: {least}": replicas[least],
            f"most busy: {most}": replicas[most],
        }
    return [[policy, name, *_figures(found, one)] for name, one in replicas.items()]


def _mean_of(replicas: Sequence[Shares]) -> Shares:
    busy, running, kv = (
        [mean(values) for values in zip(*map(of, replicas), strict=True)] for of in _KINDS.values()
    )
    return Shares(busy=busy, running=running, kv=kv)


def _figures(found: Occupancy, one: Shares) -> list[str]:
    return [text for of in _KINDS.values() for text in _mean_and_peak(found, of(one))]


def _mean_and_peak(found: Occupancy, values: Sequence[float]) -> tuple[str, str]:
    used_s = sum(
        value * (min((place + 1) * found.bin_s, found.end_s) - place * found.bin_s)
        for place, value in enumerate(values)
    )
    return share(used_s / found.end_s), share(max(values))

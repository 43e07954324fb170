"""A figure: panels drawn as SVG, a legend, and the same numbers as a table for those who cannot see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from millrace.bench.report.charts.frame import SMALL_WIDTH_PX, WIDTH_PX, marker
from millrace.bench.report.markup import element, escape
from millrace.bench.report.model import PolicyRuns, World

COLOURS = 6


class Figure(Struct, frozen=True, kw_only=True):
    """`note` says in a sentence how to read it; `legend` and `panels` are markup, `rows` are plain text."""

    title: str
    note: str
    panels: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""


def panel(*children: str, height_px: float, label: str, heading: str = "", width_px: float = WIDTH_PX) -> str:
    """One drawing; `label` is read out where it cannot be seen."""
    view_box = f"0 0 {width_px:g} {height_px:g}"
    drawing = element("svg", *children, viewBox=view_box, role="img", aria_label=label)
    title = element("h4", escape(heading)) if heading else ""
    return element("div", title, drawing, class_="panel")


def small_panel(*children: str, height_px: float, label: str, heading: str) -> str:
    """One of several drawings in a row."""
    return panel(*children, height_px=height_px, label=label, heading=heading, width_px=SMALL_WIDTH_PX)


def colour(index: int) -> str:
    """The class that gives an element the colour of the policy in that place."""
    return f"c{index % COLOURS}"


def policy_legend(policies: Sequence[PolicyRuns], *, worlds: bool = True) -> str:
    """Each policy's colour and mark, and how the worlds are told apart if there are both and it is asked."""
    items = [_item(_swatch(marker(i, 9, 7), colour(i)), p.name) for i, p in enumerate(policies)]
    return element("p", *items, *(_worlds(policies) if worlds else ()), class_="legend")


def replica_legend(names: Sequence[str]) -> str:
    """Each replica's colour and mark, where a chart tells replicas apart and not policies."""
    items = [_item(_swatch(marker(i, 9, 7), colour(i)), name) for i, name in enumerate(names)]
    return element("p", *items, class_="legend")


def world_legend(policies: Sequence[PolicyRuns]) -> str:
    """How the worlds are told apart; nothing if there is only one."""
    items = _worlds(policies)
    return element("p", *items, class_="legend") if items else ""


def stroke(world: World, policies: Sequence[PolicyRuns]) -> str:
    """The class that dashes what is simulated, unless there is nothing else."""
    return world if any(policy.live for policy in policies) else "live"


def _worlds(policies: Sequence[PolicyRuns]) -> list[str]:
    shown = {world for policy in policies for world, _ in policy.worlds()}
    if len(shown) < 2:
        return []
    strokes = {name: element("path", d="M0 7h26", class_=f"line {name}") for name in ("live", "simulated")}
    return [_item(_swatch(stroke, "ink", 26), name) for name, stroke in strokes.items()]


def legend(items: Iterable[tuple[str, str]], *, shape: str = "M1 3h12v8h-12z") -> str:
    """A legend of swatches: each item is a class and a text."""
    return element(
        "p",
        *(_item(_swatch(element("path", d=shape, class_=name), ""), text) for name, text in items),
        class_="legend",
    )


def _item(swatch: str, text: str) -> str:
    return element("span", swatch, escape(text))


def _swatch(inside: str, name: str, width_px: int = 18) -> str:
    return element(
        "svg", inside, width=width_px, height=14, class_=f"swatch {name}".strip(), aria_hidden="true"
    )

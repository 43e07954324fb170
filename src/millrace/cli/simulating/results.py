"""What `millrace simulate` prints: one JSON object, or tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from rich.table import Table

from millrace.cli.output import columns
from millrace.cli.simulating.runs import Ran
from millrace.cli.simulating.scenario import Scenario
from millrace.core.compare import Comparison, Estimate, compared, matched
from millrace.core.outcome import Measured, Outcome, measure
from millrace.simulate import Simulation

SCHEMA = "millrace.simulation/1"
LATENCIES = [f"{metric} {point}" for metric in ("TTFT", "TPOT", "E2E") for point in ("p50", "p99")]
COLUMNS = ["requests", "completed", *LATENCIES, "tokens/s", "cache hit", "SLO met", "ran in"]
_GAP = 2
_KWH_J = 3.6e6


class Versus(msgspec.Struct, frozen=True, kw_only=True):
    """A policy held against the first one, on the same arrivals; None if no request completed in both."""

    policy: str
    baseline: str
    difference: Comparison | None


def report(every: Sequence[Ran], scenario: Scenario) -> dict[str, Any]:
    """Return what `--json` prints."""
    scaled = [ran for ran in every if ran.task.step_scale != 1]
    return {
        "schema": SCHEMA,
        "trace": scenario.trace,
        "fleet": scenario.fleet,
        "slo": scenario.objectives,
        "cost_models": {name: price.expected_error for name, price in scenario.priced().items()},
        "prices": prices(scenario),
        "energy_sources": scenario.energy_sources,
        "settings": scenario.settings,
        "policies": [
            {**_policy(ran, _repeats(every, ran)), "models": by_model(ran)} for ran in every if ran.is_main
        ],
        "comparisons": versus(every),
        "sensitivity": [{"step_scale": ran.task.step_scale, **_policy(ran, [])} for ran in scaled],
    }


def prices(scenario: Scenario) -> list[dict[str, str]]:
    """Return what prices steps, how good that is, and where it comes from, for each model on each device."""
    return [
        {
            "steps": name,
            "quality": price.quality,
            "expected_error": price.expected_error,
            "source": price.source,
        }
        for name, price in scenario.priced().items()
    ]


def price_table(scenario: Scenario) -> Table:
    """The same for people."""
    shown = Table(box=None, pad_edge=False)
    for column in ("steps of", "priced by", "expected error"):
        shown.add_column(column)
    for price in prices(scenario):
        quality = f"{price['quality']} ({price['source']})"
        shown.add_row(price["steps"], quality, price["expected_error"])
    return shown


def tables(every: Sequence[Ran]) -> Iterator[Table]:
    """One row per policy; then what was asked for beside."""
    main = [ran for ran in every if ran.is_main]
    yield _table("policy", "times in seconds", [(r.task.label, r.found) for r in main])
    if any(
        known is not None for r in main for known in (r.found.measured.cost_usd, r.found.measured.energy_j)
    ):
        yield _bills(main)
    if any(r.found.itl_s for r in main):
        yield _gaps(main)
    if any(r.found.measured.moves_per_request for r in main):
        yield _moves(main)
    apart: list[tuple[str, Simulation | Measured]]
    apart = [(f"{r.task.label}, {model}", got) for r in main for model, got in by_model(r).items()]
    if apart:
        yield _table("model", "requests for each model alone", apart)
    if repeated := [(f"{r.task.label}, seed {r.task.seed}", r.found) for r in every if r.task.seed]:
        yield _table("repeat", "arrivals drawn anew", repeated)
    if scaled := [r for r in every if r.task.step_scale != 1]:
        rows = [(f"{r.task.label}, {r.task.step_scale - 1:+.0%}", r.found) for r in scaled]
        yield _table("sensitivity", "all steps shorter or longer", rows)
    if against := versus(every):
        yield _differences(against)


def by_model(ran: Ran) -> dict[str, Measured]:
    """Measure the requests for each model alone; empty if all are for one."""
    scenario = ran.task.scenario
    found: dict[str, list[Outcome]] = {}
    for outcome in ran.found.outcomes:
        found.setdefault(scenario.asked[outcome.id], []).append(outcome)
    if len(found) < 2:
        return {}
    return {model: measure(found[model], scenario.objectives) for model in sorted(found)}


def versus(every: Sequence[Ran]) -> list[Versus]:
    """Compare each policy with the first, request by request, over all seeds."""
    runs = [ran for ran in every if ran.task.step_scale == 1]
    names = list(dict.fromkeys(ran.task.label for ran in runs))
    outcomes = {(ran.task.label, ran.task.seed): ran.found.outcomes for ran in runs}
    seeds = sorted({ran.task.seed for ran in runs})
    found = []
    for name in names[1:]:
        pairs = [pair for seed in seeds for pair in matched(outcomes[names[0], seed], outcomes[name, seed])]
        found.append(Versus(policy=name, baseline=names[0], difference=compared(pairs)))
    return found


def _repeats(every: Sequence[Ran], main: Ran) -> list[Ran]:
    return [ran for ran in every if ran.task.seed and ran.task.label == main.task.label]


def _policy(ran: Ran, repeats: Sequence[Ran]) -> dict[str, Any]:
    found = ran.found
    return {
        "name": ran.task.label,
        **msgspec.structs.asdict(found.measured),
        "itl_s": found.itl_s,
        "throughput": found.measured.throughput_rps,
        "simulated_s": found.simulated_s,
        "wall_s": found.wall_s,
        **({"repeats": [{"seed": one.task.seed, **_policy(one, [])} for one in repeats]} if repeats else {}),
    }


def _table(what: str, caption: str, rows: Sequence[tuple[str, Simulation | Measured]]) -> Table:
    head, *lines = laid_out([[what, *COLUMNS], *([name, *_cells(found)] for name, found in rows)], columns())
    shown = Table(box=None, pad_edge=False, caption=f"simulated; {caption}", caption_justify="left")
    for number, column in enumerate(head):
        shown.add_column(column, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        shown.add_row(*line)
    return shown


def laid_out(lines: Sequence[Sequence[str]], width: int) -> Sequence[Sequence[str]]:
    """Return the lines of a table, or its columns as lines if the lines are wider than this."""
    turned = list(zip(*lines, strict=True))
    needed = sum(max(map(len, column)) + _GAP for column in turned) - _GAP
    return lines if needed <= width else turned


def _bills(main: Sequence[Ran]) -> Table:
    caption = "modelled; for the fleet, and for output tokens"
    shown = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in ("spent", "dollars", "a million tokens", "kWh", "J/token"):
        shown.add_column(column, justify="left" if column == "spent" else "right")
    for ran in main:
        got = ran.found.measured
        kwh = None if got.energy_j is None else got.energy_j / _KWH_J
        figures = (got.cost_usd, got.usd_per_million_tokens, kwh, got.energy_per_token_j)
        shown.add_row(ran.task.label, *("-" if value is None else f"{value:,.3f}" for value in figures))
    return shown


def _gaps(main: Sequence[Ran]) -> Table:
    caption = "simulated; seconds between two tokens of a request"
    shown = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    points = ("mean", "p50", "p90", "p99", "max")
    for column in ("gaps", "counted", *(f"ITL {point}" for point in points)):
        shown.add_column(column, justify="left" if column == "gaps" else "right")
    for ran in main:
        got = ran.found.itl_s
        cells = (f"{got.count:,}", *(f"{getattr(got, point):.3f}" for point in points)) if got else ("0",)
        shown.add_row(ran.task.label, *cells)
    return shown


def _moves(main: Sequence[Ran]) -> Table:
    caption = "simulated; seconds that running requests stood still because they were moved"
    shown = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in ("moved", "moves a request", "running", "downtime mean", "p50", "p99", "max"):
        shown.add_column(column, justify="left" if column == "moved" else "right")
    for ran in main:
        got = ran.found.measured
        down = got.downtime_s
        cells = (f"{getattr(down, point):.4f}" if down else "-" for point in ("mean", "p50", "p99", "max"))
        running = f"{down.count:,}" if down else "0"
        shown.add_row(ran.task.label, f"{got.moves_per_request:.4f}", running, *cells)
    return shown


def _differences(against: Sequence[Versus]) -> Table:
    caption = "mean seconds later (+) or sooner (-) on the same arrivals, with 95 % intervals"
    shown = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in ("compared", "requests", "TTFT", "E2E"):
        shown.add_column(column, justify="left" if column == "compared" else "right")
    for one in against:
        got = one.difference
        cells = (f"{got.requests:,}", _interval(got.ttft_s), _interval(got.e2e_s)) if got else ("0", "-", "-")
        shown.add_row(f"{one.policy} to {one.baseline}", *cells)
    return shown


def _interval(found: Estimate) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _cells(found: Simulation | Measured) -> list[str]:
    got = found.measured if isinstance(found, Simulation) else found
    ran_in = f"{found.wall_s:.1f} s" if isinstance(found, Simulation) else ""
    latencies = [
        f"{getattr(summary, point):.3f}" if summary else "-"
        for summary in (got.ttft_s, got.tpot_s, got.e2e_s)
        for point in ("p50", "p99")
    ]
    shares = [f"{got.cache_hit_ratio:.1%}", f"{got.slo_attainment:.1%}"]
    tokens = f"{got.throughput_tokens_per_s:,.0f}"
    return [f"{got.requests:,}", f"{got.completed:,}", *latencies, tokens, *shares, ran_in]

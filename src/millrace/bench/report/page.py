"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from operator import attrgetter

import msgspec

from millrace.bench.report import tables
from millrace.bench.report.charts.balance import balance
from millrace.bench.report.charts.bullets import bullets
from millrace.bench.report.charts.cdf import cdf
from millrace.bench.report.charts.errors import errors
from millrace.bench.report.charts.figure import Figure, colour
from millrace.bench.report.charts.occupancy import occupancy
from millrace.bench.report.charts.rate import rate
from millrace.bench.report.charts.scatter import scatter
from millrace.bench.report.charts.timeline import timeline
from millrace.bench.report.markup import element, escape
from millrace.bench.report.metrics import METRICS, difference
from millrace.bench.report.model import PolicyRuns, RunReport
from millrace.bench.report.units import duration, share, tick
from millrace.bench.report.warnings import warnings

_TTFT_P99 = next(metric for metric in METRICS if metric.key == "ttft_p99_s")

_TERMS = (
    "TTFT: from the moment a request was due to its first token. E2E: to the end of its answer. "
    "TPOT: mean time per token after the first. Latencies are of completed requests."
)

_REPEATS = (
    "Live and simulated values are medians of the repeats, the lowest and the highest those of the live "
    "ones; a simulation is in the spread if it lies between them. Charts show the repeat in the middle."
)


def page(report: RunReport) -> str:
    """Return the whole page."""
    style = files(__package__).joinpath("style.css").read_text()
    head = element(
        "head",
        '<meta charset="utf-8"/><meta name="viewport" content="width=device-width,initial-scale=1"/>',
        '<meta name="color-scheme" content="light dark"/>',
        element("title", escape(report.title)),
        element("style", style),
    )
    body = element("body", element("main", *_parts(report)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _parts(report: RunReport) -> Iterable[str]:
    yield _header(report)
    yield _warnings(report)
    yield element("div", *(_card(i, p) for i, p in enumerate(report.policies)), class_="cards")
    notes = [_TERMS, _REPEATS] if _repeats(report) else [_TERMS]
    told = [element("p", note, class_="note") for note in notes]
    yield _section("Policies compared", tables.comparison(report), *told)
    yield from _beside(report)
    yield _section("Latency", *map(_figure, _latency(report)))
    yield _section("The fleet over time", *map(_figure, _fleet(report)))
    yield _section("Slowest requests", element("div", *_slow(report)))
    fine = element("p", "Every request was answered.", class_="note")
    yield _section("Errors", tables.errors(report) or fine)
    yield _section("All percentiles", tables.percentiles(report))
    yield _section("How to make this report again", *_again(report))


def _beside(report: RunReport) -> Iterable[str]:
    """What is known of some runs only."""
    if later := tables.against(report):
        note = element("p", tables.AGAINST.format(escape(report.policies[0].name)), class_="note")
        yield _section("How sure the difference is", later, note)
    if spent := tables.spent(report):
        yield _section("Dollars and joules", spent, element("p", tables.SPENT, class_="note"))


def _slow(report: RunReport) -> Iterable[str]:
    for i, policy in enumerate(report.policies):
        yield _folded(f"{policy.name}, {policy.main_world}", tables.slowest(policy), opened=i == 0)


def _latency(report: RunReport) -> Iterable[Figure]:
    policies, slo = report.policies, report.slo
    truth = errors(policies)
    if truth:
        yield truth
    yield bullets(policies, attrgetter("ttft_s"), title="TTFT", limit_s=slo.ttft_s)
    yield cdf(policies, attrgetter("ttft_s"), title="TTFT", limit_s=slo.ttft_s)
    yield cdf(policies, attrgetter("e2e_s"), title="E2E")
    yield bullets(policies, attrgetter("tpot_s"), title="TPOT", limit_s=slo.tpot_s)
    yield cdf(policies, attrgetter("tpot_s"), title="TPOT", limit_s=slo.tpot_s)


def _fleet(report: RunReport) -> Iterable[Figure]:
    yield timeline(report.policies)
    yield rate(report.policies)
    for found in (occupancy(report.policies), balance(report.policies)):
        if found:
            yield found
    yield scatter(report.policies, limit_s=report.slo.ttft_s)


def _header(report: RunReport) -> str:
    requests = report.policies[0].main.measured.requests
    times = _repeats(report)
    facts = (
        f"{requests:,} requests per policy" + (f", {times} times" if times else ""),
        f"objective {_objective(report)}",
        f"seed {report.seed}",
        report.origin.created.replace("T", " ").replace("+00:00", " UTC"),
        report.origin.host.get("processor", ""),
    )
    return element(
        "header",
        element("p", "Millrace run report", class_="overline"),
        element("h1", escape(report.title)),
        element("p", *(element("span", escape(fact)) for fact in facts if fact), class_="facts"),
    )


def _repeats(report: RunReport) -> int:
    return max(len(policy.repeats) for policy in report.policies)


def _objective(report: RunReport) -> str:
    limits = (("TTFT", report.slo.ttft_s), ("TPOT", report.slo.tpot_s))
    named = [f"{name} \u2264 {tick(limit)}" for name, limit in limits if limit is not None]
    return ", ".join(named) or "none"


def _warnings(report: RunReport) -> str:
    found = [element("li", escape(text)) for text in warnings(report)]
    if not found:
        return ""
    heading = element("h2", "Before you believe this")
    return element("aside", heading, element("ul", *found), class_="warnings")


def _card(index: int, policy: PolicyRuns) -> str:
    """A policy in four numbers."""
    measured = policy.main.measured
    p99_s = measured.ttft_s.p99 if measured.ttft_s else None
    facts = [("SLO met", share(measured.slo_attainment)), ("cache hit", share(measured.cache_hit_ratio))]
    found = difference(_TTFT_P99, policy)
    if found:
        facts.append(("simulation off by", found.text))
    return element(
        "article",
        element("h3", escape(policy.name)),
        element("p", _big(duration(p99_s)), element("span", f"TTFT p99, {policy.main_world}"), class_="big"),
        element("dl", *(element("div", element("dt", k), element("dd", escape(v))) for k, v in facts)),
        class_=f"card {colour(index)}",
    )


def _big(text: str) -> str:
    value, _, unit = text.partition("\u00a0")
    return element("strong", escape(value), element("small", escape(unit)))


def _figure(figure: Figure) -> str:
    caption = element("figcaption", element("h3", escape(figure.title)), element("p", escape(figure.note)))
    panels = element("div", *figure.panels, class_="panels" if len(figure.panels) > 1 else "")
    numbers = tables.table(figure.columns, figure.rows, caption=f"{figure.title}: numbers")
    wide = "wide" if len(figure.panels) > 1 else None
    return element("figure", caption, figure.legend, panels, _folded("Numbers", numbers), class_=wide)


def _again(report: RunReport) -> Iterable[str]:
    yield element("pre", element("code", escape(report.origin.command)))
    settings = {key: _plain(value) for key, value in report.config.items()}
    yield element(
        "div",
        *(
            _list(name, values)
            for name, values in (
                ("Settings", settings),
                ("Versions", report.origin.versions),
                ("Machine", report.origin.host),
            )
        ),
        class_="origin",
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _list(name: str, values: dict[str, str]) -> str:
    pairs = (element("div", element("dt", escape(k)), element("dd", escape(v))) for k, v in values.items())
    return element("section", element("h3", escape(name)), element("dl", *pairs))


def _section(title: str, *parts: str) -> str:
    return element("section", element("h2", escape(title)), *parts)


def _folded(summary: str, inside: str, *, opened: bool = False) -> str:
    return element("details", element("summary", escape(summary)), inside, open="" if opened else None)

"""Charts: what they draw is what the runs say."""

from __future__ import annotations

import re
from operator import attrgetter

import pytest

from millrace.bench.report import PolicyRuns
from millrace.bench.report.charts.balance import balance, computed_tokens
from millrace.bench.report.charts.bullets import bullets
from millrace.bench.report.charts.cdf import cdf
from millrace.bench.report.charts.errors import errors
from millrace.bench.report.charts.figure import Figure
from millrace.bench.report.charts.scatter import scatter
from millrace.bench.report.charts.timeline import in_flight, timeline
from tests.unit.bench.report.runs import outcome, refused, run


def rows(figure: Figure | None) -> list[list[str]]:
    assert figure is not None
    return [[text.replace("\u00a0", " ") for text in row] for row in figure.rows]


def both(name: str = "p") -> PolicyRuns:
    return PolicyRuns(name=name, live=run(), simulated=run([outcome(n) for n in range(0, 240, 2)]))


def heights(figure: Figure) -> list[float]:
    """The lowest and highest pixel of the first curve, counted upwards from the baseline."""
    (path,) = re.findall(r'<path d="M([^"]*)" class="line', figure.panels[0])
    start, *steps = path.split("l")
    y = [float(start.split()[1])]
    for step in steps:
        y.append(y[-1] + float(step.split()[1]))
    return [248 - max(y), 248 - min(y)]


def test_a_distribution_of_answered_requests_reaches_the_top() -> None:
    figure = cdf([PolicyRuns(name="p", live=run())], attrgetter("ttft_s"), title="TTFT")
    assert heights(figure) == pytest.approx([0, 224], abs=0.5)
    assert rows(figure) == [["p", "live", *["100 ms"] * 7]]


def test_requests_without_an_answer_keep_the_distribution_below_the_top() -> None:
    half = run([outcome(n) if n % 2 else refused(n) for n in range(100)])
    figure = cdf([PolicyRuns(name="p", live=half)], attrgetter("ttft_s"), title="TTFT")
    assert heights(figure) == pytest.approx([0, 112], abs=0.5)


def test_an_objective_off_the_chart_is_not_drawn() -> None:
    policies = [PolicyRuns(name="p", live=run())]
    near, far = (cdf(policies, attrgetter("ttft_s"), title="TTFT", limit_s=s) for s in (0.2, 99))
    assert "SLO 200" in near.panels[0]
    assert "SLO" not in far.panels[0]


def test_bars_tell_percentiles_or_that_there_are_none() -> None:
    policies = [both(), PolicyRuns(name="bad", live=run([refused()]))]
    figure = bullets(policies, attrgetter("ttft_s"), title="TTFT", limit_s=0.5)
    dash = "\u2013"
    assert rows(figure) == [
        ["p", "live", *["100 ms"] * 3],
        ["p", "simulated", *["100 ms"] * 3],
        ["bad", "live", dash, dash, dash],
    ]
    assert "no completed request" in figure.panels[0]


def test_errors_are_drawn_for_what_ran_in_both_worlds() -> None:
    figure = errors([both("a"), PolicyRuns(name="b", live=run())])
    assert figure is not None
    assert figure.panels[0].count("translate(") == 8
    told = {(row[0], row[1]): row[4] for row in rows(figure)}
    assert told["TTFT p50", "a"] == "+0.0 %"
    assert told["cache hit", "a"] == "+0.0 pt"
    assert ("TTFT p50", "b") not in told
    assert errors([PolicyRuns(name="b", live=run())]) is None


def test_requests_in_flight_are_counted_from_schedule_to_end() -> None:
    overlapping = [outcome(0, finished_s=2.0), outcome(1, finished_s=1.0), outcome(2, finished_s=None)]
    assert in_flight(run(overlapping)) == [(0, 1), (0.5, 2), (1.0, 1), (2.0, 0)]
    figure = timeline([PolicyRuns(name="p", live=run(overlapping))])
    assert rows(figure) == [["p", "live", "1.2", "2", "2.00 s"]]


def test_thinning_out_a_long_run_keeps_its_peak() -> None:
    calm = [outcome(n) for n in range(4000)]
    rush = [outcome(1000, id=f"x{n}") for n in range(80)]
    figure = timeline([PolicyRuns(name="p", live=run([*calm, *rush]))])
    assert rows(figure)[0][3] == "81"
    assert figure.panels[0].count("V") == 149
    tops = [float(y) for y in re.findall(r"V([\d.]+)", figure.panels[0])]
    assert min(tops) == pytest.approx(24 + 124 * (1 - 81 / 100), abs=0.1)


def test_a_run_in_which_nothing_ended_has_an_empty_timeline() -> None:
    figure = timeline([PolicyRuns(name="p", live=run([outcome(0, finished_s=None)]))])
    assert rows(figure) == [["p", "live", "0", "0", "\u2013"]]


def test_cached_tokens_are_no_work_for_a_replica() -> None:
    assert computed_tokens(run([outcome(0), outcome(1), outcome(2)])) == {"engine-0": 180, "engine-1": 90}
    assert rows(balance([PolicyRuns(name="p", live=run([outcome(0), outcome(1), outcome(2)]))])) == [
        ["p", "live", "180", "90", "133 %"]
    ]


def test_replicas_with_long_names_are_named_in_the_table_only() -> None:
    url = "http://a-machine-with-a-long-name.example.org:8000/engine-number-1"
    figure = balance([PolicyRuns(name="p", live=run([outcome(0, replica=url)]))])
    assert figure is not None
    assert url not in figure.panels[0]
    assert url in figure.columns


def test_dots_are_coloured_by_what_was_cached() -> None:
    cached = [outcome(n, cached_tokens=tokens) for n, tokens in enumerate((0, 19, 20, 99, 100))]
    figure = scatter([PolicyRuns(name="p", live=run(cached))], limit_s=0.1)
    dots = {
        name: path.count("h0")
        for path, name in re.findall(r'd="(M[^"]*)" class="dot (d\d)"', figure.panels[0])
    }
    assert dots == {"d0": 2, "d1": 1, "d4": 2}
    assert rows(figure)[0] == ["p", "100\u2013100", "1", "0 %", "100 ms", "100 ms"]

"""Charts of the fleet over time, and tables of what is known of some runs only."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from millrace.bench.report import PolicyRuns
from millrace.bench.report.charts.occupancy import occupancy
from millrace.bench.report.charts.rate import rate, token_rate
from millrace.bench.report.files import summary
from millrace.bench.report.tables import against, spent
from millrace.simulate.occupancy import Occupancy, Shares
from tests.unit.bench.report.runs import outcome, parsed, refused, report, run, text_of

SHARES = Shares(busy=[0.5, 1.0, 0.0], running=[0.1, 0.2, 0.0], kv=[0.0, 0.04, 0.0])


def watched(replicas: int, *, name: str = "p", end_s: float = 25.0) -> PolicyRuns:
    found = Occupancy(bin_s=10.0, end_s=end_s, replicas={f"r{n}": SHARES for n in range(replicas)})
    return PolicyRuns(name=name, simulated=run(occupancy=found))


def test_each_of_few_replicas_has_its_line_and_a_mark_at_its_peak() -> None:
    figure = occupancy([watched(2), watched(2, name="q")])
    assert figure is not None
    assert len(figure.panels) == 6
    for panel in figure.panels:
        assert panel.count('class="line"') == panel.count('class="mark"') == 2
    steps = re.findall(r'd="M([\d.]+) ([\d.]+)((?:H[\d.]+V[\d.]+)+)" class="line"', figure.panels[0])
    x_px, y_px, moves = steps[0]
    # From 54 to 338 px are 25 s, and from 148 up to 24 px are 100 %.
    assert (float(x_px), float(y_px)) == (54, 86)
    assert moves == "H167.6V24H281.2V148H338V148"
    assert "translate(224.4 24)" in figure.panels[0]


def test_the_numbers_weigh_the_last_bin_by_its_length() -> None:
    figure = occupancy([watched(1)])
    assert figure is not None
    assert figure.legend == ""
    told = [text.replace("\u00a0", " ") for text in figure.rows[0]]
    assert told == ["p", "r0", "60 %", "100 %", "12 %", "20 %", "1.6 %", "4.0 %"]


def test_many_replicas_are_a_mean_and_a_band() -> None:
    found = {f"r{n}": Shares(busy=[n / 10], running=[0.1], kv=[0.1]) for n in range(10)}
    busy = Occupancy(bin_s=10.0, end_s=10.0, replicas=found)
    figure = occupancy([PolicyRuns(name="p", simulated=run(occupancy=busy))])
    assert figure is not None
    assert "from the least used to the most used" in figure.note
    assert figure.panels[0].count('class="third"') == figure.panels[0].count('class="line"') == 1
    assert [row[1:3] for row in figure.rows] == [
        ["mean of 10", "45\u00a0%"],
        ["least busy: r0", "0\u00a0%"],
        ["most busy: r9", "90\u00a0%"],
    ]


def test_a_fleet_that_nobody_watched_or_that_did_nothing_has_no_such_chart() -> None:
    assert occupancy([PolicyRuns(name="p", live=run(), simulated=run())]) is None
    assert occupancy([watched(1, end_s=0.0)]) is None


def test_the_page_and_its_data_have_what_was_watched() -> None:
    made = report(watched(2))
    assert "How full the fleet was" in text_of(parsed(made))
    (policy,) = summary(made)["policies"]
    assert policy["simulated"]["occupancy"].replicas["r1"] == SHARES
    (other,) = summary(report(PolicyRuns(name="p", simulated=run())))["policies"]
    assert "occupancy" not in other["simulated"]


def test_tokens_are_spread_from_the_first_to_the_last() -> None:
    even = outcome(0, first_token_s=1.0, finished_s=4.0, output_tokens=7)
    assert token_rate(run([even]), 4.0, bins=4) == pytest.approx([0, 1 + 2, 2, 2])
    at_once = outcome(0, first_token_s=3.5, finished_s=3.5, output_tokens=7)
    assert token_rate(run([at_once]), 4.0, bins=4) == pytest.approx([0, 0, 0, 7])
    nothing = [refused(), outcome(1, first_token_s=None), outcome(2, status="failed")]
    nothing.append(outcome(3, output_tokens=0))
    assert token_rate(run(nothing), 4.0, bins=4) == [0, 0, 0, 0]


def test_no_token_is_lost() -> None:
    outcomes = [outcome(n, finished_s=n / 2 + 0.1 + n % 7) for n in range(100)]
    end_s = max(o.finished_s or 0.0 for o in outcomes)
    rates = token_rate(run(outcomes), end_s, bins=13)
    assert sum(rates) * end_s / 13 == pytest.approx(100 * 10)


def test_the_rate_is_told_of_each_world() -> None:
    figure = rate([PolicyRuns(name="p", live=run(), simulated=run())])
    assert [row[:2] for row in figure.rows] == [["p", "live"], ["p", "simulated"]]
    assert figure.rows[0][2:] == figure.rows[1][2:]
    assert rate([PolicyRuns(name="p", live=run([refused()]))]).rows[0][2:] == ["0", "0"]


def test_other_policies_are_held_against_the_first_request_by_request() -> None:
    later = run([outcome(n, first_token_s=n / 2 + 0.15, finished_s=n / 2 + 0.28) for n in range(120)])
    first = PolicyRuns(name="a", live=run(), simulated=run())
    second = PolicyRuns(name="b", live=later, simulated=run())
    text = text_of(parsed(report(first, second)))
    assert "How sure the difference is" in text
    assert "b live 120 +50.0 ms +50.0 ms to +50.0 ms" in text
    assert "b simulated 120 0 ms 0 ms to 0 ms" in text


def test_policies_without_a_request_in_common_are_not_held_against_each_other() -> None:
    apart = PolicyRuns(name="b", live=run([refused()]))
    assert against(report(PolicyRuns(name="a", live=run()), apart)) == ""
    assert against(report(PolicyRuns(name="a", live=run()))) == ""


def test_dollars_and_joules_are_told_where_they_are_known() -> None:
    free = run()
    paid = replace(free, measured=replace(free.measured, cost_usd=2.5, usd_per_million_tokens=25_000.0))
    text = text_of(parsed(report(PolicyRuns(name="a", simulated=paid), PolicyRuns(name="b", simulated=free))))
    assert "a simulated 2.50 25,000 \u2013 \u2013" in text
    assert spent(report(PolicyRuns(name="b", simulated=free))) == ""

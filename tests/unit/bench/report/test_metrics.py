"""The compared numbers, how far simulations are off, and what makes a report doubtful."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.bench.report import PolicyRuns, RunReport
from millrace.bench.report.metrics import METRICS, REQUESTS, Metric, difference, differences
from millrace.bench.report.warnings import warnings
from millrace.core.outcome import Outcome
from millrace.core.stats import summary
from tests.unit.bench.report.runs import outcome, refused, report, run


def metric(key: str) -> Metric:
    return next(one for one in (REQUESTS, *METRICS) if one.key == key)


def later(number: int) -> Outcome:
    """The usual request with its first token 0.12 s instead of 0.1 s after it was due."""
    return outcome(number, first_token_s=number / 2 + 0.12, cached_tokens=30)


def test_metrics_are_shown_in_their_units() -> None:
    measured = run().measured
    assert metric("requests").shown(measured) == 120
    assert metric("ttft_p50_s").shown(measured) == pytest.approx(100)
    assert metric("tpot_p99_s").shown(measured) == pytest.approx(20)
    assert metric("cache_hit_ratio").shown(measured) == pytest.approx(20)
    assert metric("slo_attainment").shown(measured) == 100
    assert metric("ttft_p50_s").shown(run([refused()]).measured) is None


def test_latencies_differ_relatively_and_shares_absolutely() -> None:
    both = PolicyRuns(name="p", live=run(), simulated=run([later(n) for n in range(120)]))
    waited, cached = (difference(metric(key), both) for key in ("ttft_p50_s", "cache_hit_ratio"))
    assert waited is not None
    assert waited.relative == pytest.approx(0.2)
    assert waited.percent == pytest.approx(20)
    assert waited.text == "+20\u00a0%"
    assert cached is not None
    assert cached.absolute == pytest.approx(0.1)
    assert cached.text == "+10.0\u00a0pt"
    assert [one.metric for one in differences(both)] == [one.key for one in METRICS]


def test_what_one_world_lacks_has_no_difference() -> None:
    assert differences(PolicyRuns(name="p", live=run())) == []
    nothing = PolicyRuns(name="p", live=run([refused()]), simulated=run())
    assert difference(metric("ttft_p50_s"), nothing) is None


def test_a_live_zero_has_no_relative_error() -> None:
    found = difference(metric("throughput_rps"), PolicyRuns(name="p", live=run([refused()]), simulated=run()))
    assert found is not None
    assert (found.relative, found.percent) == (None, None)


def doubts(**runs: Any) -> list[str]:
    return warnings(report(PolicyRuns(name="p", **runs)))


def test_a_good_run_raises_no_doubts() -> None:
    on_time = summary([0.001] * 120)
    assert doubts(live=run(client_lag_s=on_time), simulated=run()) == []


def test_a_late_client_is_told() -> None:
    (told,) = doubts(live=run(client_lag_s=summary([0.02] * 120)))
    assert told.startswith("p, live: the client itself was late (p99 20.0\u00a0ms)")


def test_errors_above_one_percent_are_told() -> None:
    bad = [outcome(200, status="failed", error="cut: it ended"), refused(201), refused(202)]
    (told,) = doubts(live=run([*(outcome(n) for n in range(120)), *bad]))
    assert told == "p, live: 1.6\u00a0% of the requests were refused; latencies are of the others."


def test_few_samples_and_unfinished_runs_are_told() -> None:
    few, unfinished = doubts(live=run([outcome(), outcome(1, status="cancelled")]))[::-1]
    assert "1 completed requests are few" in few
    assert "1 requests were cancelled or not sent" in unfinished


def test_the_same_doubt_about_many_runs_is_told_once() -> None:
    few = run([outcome()])
    a, b = PolicyRuns(name="a", live=few, simulated=few), PolicyRuns(name="b", live=run())
    (told,) = warnings(report(a, b))
    assert told.startswith("a, live; a, simulated: 1 completed requests are few")
    (told,) = warnings(report(a))
    assert told.startswith("every run: ")


def test_worlds_of_different_size_are_told() -> None:
    (told,) = doubts(live=run(), simulated=run([outcome(n) for n in range(119)]))
    assert told == "p: 120 requests live but 119 simulated; do not compare them."


def test_a_policy_ran_somewhere_and_a_report_has_policies() -> None:
    with pytest.raises(ValueError, match="policy 'p' has neither a live nor a simulated run"):
        PolicyRuns(name="p")
    usual = report()
    with pytest.raises(ValueError, match="policies is empty"):
        RunReport(title="t", slo=usual.slo, seed=1, config={}, origin=usual.origin, policies=[])

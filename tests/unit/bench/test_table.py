"""The terminal's table: whole at 80 columns, with the simulation's errors below it."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from millrace.bench.report import PolicyRuns, Repeat, RunReport, repeated
from millrace.bench.table import comparison
from tests.unit.bench.report.runs import outcome, report, run


def lines(made: RunReport) -> list[str]:
    out = StringIO()
    Console(file=out, width=80).print(comparison(made))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def row(made: RunReport, name: str) -> list[str]:
    (found,) = [line.split() for line in lines(made) if line.split()[:1] == [name]]
    return found[1:]


def later() -> list[PolicyRuns]:
    late = run([outcome(n, first_token_s=n / 2 + 0.12) for n in range(120)])
    return [PolicyRuns(name="prefix_affinity", live=run(), simulated=late)]


def again(ttft_s: float) -> Repeat:
    """A live run with this time to first token, of which 0.12 s were predicted."""
    live = run([outcome(n, first_token_s=n / 2 + ttft_s) for n in range(120)])
    return Repeat(live=live, simulated=run([outcome(n, first_token_s=n / 2 + 0.12) for n in range(120)]))


def test_both_worlds_and_the_error_fit_80_columns() -> None:
    made = report(*later())
    whole = "\n".join(lines(made))
    assert "\u2026" not in whole
    assert "prefix_affinity" in whole
    live = ["120", "2.01", "100", "100", "100", "20.0", "20.0", "280", "280", "20.0", "100"]
    assert row(made, "live")[:5] == live[:5]
    assert row(made, "simulated")[2] == "120"
    assert row(made, "error")[1:5] == ["+20", "+20", "+20", "\u221211"]
    assert "errors in %, those of cache hit and SLO in points" in whole


def test_repeats_show_medians_and_extremes_and_whether_the_simulation_lies_between() -> None:
    made = report(repeated("prefix_affinity", [again(0.10), again(0.14), again(0.16)]))
    whole = "\n".join(lines(made))
    assert "\u2026" not in whole
    assert "medians of 3 repeats" in whole
    assert [row(made, name)[2] for name in ("live", "lowest", "highest")] == ["140", "100", "160"]
    assert row(made, "simulated")[2] == "120"
    assert row(made, "error")[1] == "\u221214"
    assert row(made, "in")[1:5] == ["yes", "yes", "yes", "yes"]


def test_a_simulation_outside_of_what_was_seen_live_is_told() -> None:
    made = report(repeated("p", [again(0.13), again(0.14)]))
    assert row(made, "in")[2] == "no"


def test_one_world_takes_one_line_per_policy_and_is_named() -> None:
    made = report(PolicyRuns(name="a", simulated=run()), PolicyRuns(name="b", simulated=run()))
    assert row(made, "a") == row(made, "b")
    assert lines(made)[-1].strip() == "all simulated"


def test_policies_of_different_worlds_say_which() -> None:
    made = report(PolicyRuns(name="a", live=run()), PolicyRuns(name="b", simulated=run()))
    assert row(made, "live")[0] == row(made, "simulated")[0] == "120"
    assert not [line for line in lines(made) if line.split()[:1] == ["error"]]

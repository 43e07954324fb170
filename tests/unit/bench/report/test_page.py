"""The page: well-formed, self-contained, readable without eyes, and unimpressed by strange runs."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.bench.report import PolicyRuns, Repeat, RunReport, repeated
from millrace.bench.report.page import page
from millrace.core.outcome import Outcome
from millrace.core.request import Slo
from tests.unit.bench.report.runs import outcome, parsed, refused, report, run, text_of


def figures(made: RunReport) -> dict[str, Element]:
    """The page's figures by their headings."""
    return {text_of(found[0][0]): found for found in parsed(made).iter("figure")}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page(report())
    assert not re.search(r"<script|<link|<img|<iframe|\ssrc=|\shref=|url\(|@import|https?://", text)


def test_every_drawing_says_in_words_what_it_shows_or_is_decoration() -> None:
    for drawing in parsed(report()).iter("svg"):
        if drawing.get("aria-hidden") != "true":
            assert drawing.get("role") == "img"
            assert drawing.get("aria-label")


def test_every_figure_has_its_numbers_as_a_table() -> None:
    shown = figures(report())
    assert len(shown) == 10
    for title, figure in shown.items():
        assert len(list(figure.iter("td"))) > 1, title


def test_the_page_says_how_to_make_it_again() -> None:
    whole = text_of(parsed(report()))
    for part in ("millrace demo --seed 7", "azure_conv_2023", "millrace 0.1.0", "a fast one", "seed 7"):
        assert part in whole


def test_names_and_messages_are_shown_as_they_are_and_run_nothing() -> None:
    evil = '<script>alert("x")</script>'
    bad = outcome(1, status="failed", error=f"in-band: {evil}", replica=evil)
    made = report(PolicyRuns(name=evil, live=run([outcome(0), bad])), title=evil, config={evil: evil})
    assert "<script" not in page(made)
    assert text_of(parsed(made)).count(evil) > 5


def test_a_page_without_doubts_has_no_warnings_and_one_with_doubts_begins_with_them() -> None:
    assert parsed(report()).find(".//aside") is None
    few = parsed(report(PolicyRuns(name="p", live=run([outcome()])))).find(".//aside")
    assert few is not None
    assert "1 completed requests are few" in text_of(few)


def test_only_runs_in_both_worlds_are_compared_with_each_other() -> None:
    alone = report(PolicyRuns(name="a", live=run()), PolicyRuns(name="b", simulated=run()))
    assert "Simulated against live" not in figures(alone)
    assert "Simulated against live" in figures(report())


def test_one_world_alone_is_drawn_with_whole_lines() -> None:
    alone = page(report(PolicyRuns(name="a", simulated=run()))).partition("</style>")[2]
    assert 'class="line live"' in alone
    assert "line simulated" not in alone


def test_repeats_are_told_and_their_extremes_shown() -> None:
    one = Repeat(live=run(), simulated=run())
    whole = text_of(parsed(report(repeated("p", [one, one, one]))))
    assert "120 requests per policy, 3 times" in whole
    assert "medians of the repeats" in whole
    assert "lowest 120" in whole
    assert "in spread yes yes" in whole


def test_the_charts_show_the_repeat_in_the_middle() -> None:
    early, usual, late = (
        Repeat(live=run([outcome(finished_s=end_s)]), simulated=run()) for end_s in (0.2, 0.3, 0.4)
    )
    assert repeated("p", [late, early, usual]).live is usual.live
    assert repeated("p", [late]) == PolicyRuns(name="p", live=late.live, simulated=late.simulated)
    nothing = Repeat(live=run([refused()]), simulated=run())
    assert repeated("p", [nothing, late]).live is late.live


def test_errors_are_listed_with_an_example_of_each_kind() -> None:
    bad = [refused(1), refused(2), outcome(3, status="failed", error="cut: the stream ended")]
    whole = text_of(parsed(report(PolicyRuns(name="p", live=run([outcome(), *bad])))))
    assert "p live refused http 503: the queue is full r1 2" in whole
    assert "p live failed cut: the stream ended r3 1" in whole
    assert "Every request was answered." in text_of(parsed(report()))


def test_the_slowest_first_tokens_come_first() -> None:
    slow = [outcome(n, first_token_s=n / 2 + n, finished_s=n / 2 + n + 1) for n in range(1, 40)]
    tables = parsed(report(PolicyRuns(name="p", live=run(slow)))).iter("table")
    table = next(t for t in tables if "Slowest" in text_of(t[0]))
    rows = [text_of(row[0]) for row in table.iter("tr")]
    assert rows == ["request", *(f"r{n}" for n in range(39, 24, -1))]


def test_a_replica_nobody_named_is_not_drawn() -> None:
    unnamed = run([outcome(n, replica=None) for n in range(3)])
    assert "Balance of replicas" not in figures(report(PolicyRuns(name="p", live=unnamed)))


def test_a_long_run_makes_no_heavy_page() -> None:
    many = run([outcome(n) for n in range(20_000)])
    assert len(page(report(PolicyRuns(name="p", live=many, simulated=many)))) < 150_000


@pytest.mark.parametrize("slo", [Slo(), Slo(ttft_s=1e-9), Slo(ttft_s=1e9, tpot_s=1e9)])
def test_any_objective_can_be_drawn(slo: Slo) -> None:
    assert figures(report(slo=slo))


moments = st.floats(0, 1e4).map(lambda s: round(s, 9))  # no clock tells less than a nanosecond
counts = st.integers(0, 10**6)


@st.composite
def any_outcome(draw: st.DrawFn) -> Outcome:
    """An outcome with any of its parts missing, but with its moments in order."""
    due_s = draw(moments)
    first_s = draw(st.none() | moments.map(lambda wait: due_s + wait))
    return Outcome(
        id=draw(st.text("a<&>\"'\u00e9", max_size=8)),
        scheduled_s=due_s,
        status=draw(st.sampled_from(["completed", "refused", "failed", "cancelled"])),
        prompt_tokens=draw(counts),
        output_tokens=draw(counts),
        cached_tokens=draw(counts),
        replica=draw(st.none() | st.sampled_from(["a", "b", "a rather long name of a replica"])),
        first_token_s=first_s,
        finished_s=draw(st.none() | moments.map(lambda wait: (first_s or due_s) + wait)),
        error=draw(st.none() | st.just("cut: it ended")),
    )


@settings(max_examples=25)
@given(st.lists(any_outcome(), min_size=1, max_size=6), st.lists(any_outcome(), min_size=1, max_size=6))
def test_any_outcomes_make_a_well_formed_page(live: list[Outcome], simulated: list[Outcome]) -> None:
    made = report(PolicyRuns(name="p", live=run(live), simulated=run(simulated)))
    assert not re.search(r"\bnan\b|\binf\b|None", text_of(parsed(made)))

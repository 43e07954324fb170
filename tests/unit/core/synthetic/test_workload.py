"""A workload made from a fit is like the trace, and the same for the same seed."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import pytest
from msgspec import json
from msgspec.structs import replace

from millrace.core.synthetic import Workload, fit_workload, generate
from millrace.core.synthetic.conversations import by_session, fit_turns
from millrace.core.trace import TraceRecord


def chat(sessions: int, turns: int) -> list[TraceRecord]:
    """Conversations one after another, each turn 10 s and 100 tokens further; the last turns fail."""
    return [
        TraceRecord(
            id=f"{s}-{t}",
            t_s=5.0 * s + 10.0 * t,
            input_tokens=100 * (t + 1) + s % 7,
            output_tokens=0 if t == turns - 1 else 50,
            session=f"s{s}",
            failed=t == turns - 1,
        )
        for s in range(sessions)
        for t in range(turns)
    ]


def quick_then_long(sessions: int) -> list[TraceRecord]:
    """Conversations of two turns with prompts alike: 5 tokens of answer, then 500."""
    return [
        TraceRecord(
            id=f"{s}-{t}", t_s=s + 10.0 * t, input_tokens=100, output_tokens=answer, session=str(s), turn=t
        )
        for s in range(sessions)
        for t, answer in enumerate((5, 500))
    ]


def alone(count: int) -> list[TraceRecord]:
    return [
        TraceRecord(id=str(n), t_s=n * 0.5, input_tokens=100 + n % 50, output_tokens=20) for n in range(count)
    ]


def test_the_same_seed_makes_the_same_trace_and_another_one_another() -> None:
    workload = fit_workload(alone(400))
    made = list(generate(workload, seed=1))
    assert made == list(generate(workload, seed=1)) != list(generate(workload, seed=2))


def test_going_through_the_periods_once_makes_about_as_many_requests() -> None:
    made = list(generate(fit_workload(alone(1200), end_s=600.0)))
    assert len(made) == pytest.approx(1200, rel=0.02)
    assert made[-1].t_s == pytest.approx(600, rel=0.02)
    assert all(r.session is None and r.turn is None and r.blocks == () for r in made)


def test_as_many_requests_as_asked_for_come_in_order() -> None:
    made = list(generate(fit_workload(chat(200, 3)), requests=2500))
    assert len(made) == len({r.id for r in made}) == 2500
    assert [r.t_s for r in made] == sorted(r.t_s for r in made)


def test_turns_follow_each_other_as_in_the_trace() -> None:
    made = list(generate(fit_workload(chat(200, 3)), seed=3))
    sessions = defaultdict(list)
    for record in made:
        sessions[record.session].append(record)
    assert {len(turns) for turns in sessions.values()} == {3}
    for turns in sessions.values():
        assert [t.turn for t in turns] == [0, 1, 2]
        assert [t.parent for t in turns] == [None, turns[0].id, turns[1].id]
        assert turns[2].t_s - turns[0].t_s == pytest.approx(20)
        assert turns[2].input_tokens - turns[0].input_tokens == pytest.approx(200, abs=20)


def test_later_turns_have_answers_of_later_turns() -> None:
    made = list(generate(fit_workload(quick_then_long(200)), seed=3))
    assert {r.output_tokens for r in made if r.turn == 0} == {5}
    assert {r.output_tokens for r in made if r.turn == 1} == {500}


def test_conversations_of_which_no_turn_but_the_first_was_answered_can_be_fitted() -> None:
    made = list(generate(fit_workload(chat(100, 2)), seed=3))
    assert {r.failed for r in made} == {False}
    assert {r.output_tokens for r in made} == {50}


def test_failures_are_as_frequent_as_those_of_first_turns() -> None:
    records = [replace(r, failed=n % 4 == 0) for n, r in enumerate(alone(2000))]
    made = list(generate(fit_workload(records), seed=5))
    assert fmean(r.failed for r in made) == pytest.approx(0.25, abs=0.03)
    assert all((r.output_tokens == 0) == r.failed for r in made)


def test_turns_of_a_conversation_share_blocks_as_far_as_both_go() -> None:
    made = list(generate(fit_workload(chat(50, 2)), block_tokens=32, model="m"))
    first, second = (next(r for r in made if r.id == f"0.{turn}") for turn in (0, 1))
    assert len(first.blocks) == first.input_tokens // 32
    assert second.blocks[: len(first.blocks)] == first.blocks
    assert {r.model for r in made} == {"m"}
    other = next(r for r in made if r.id == "1.0")
    assert not set(other.blocks) & set(second.blocks)


def test_a_workload_can_be_written_down_and_read_back() -> None:
    workload = fit_workload(chat(50, 2), burst="weibull")
    assert json.decode(json.encode(workload), type=Workload) == workload


def test_a_trace_may_be_out_of_order() -> None:
    records = alone(300)
    assert fit_workload(reversed(records)) == fit_workload(records)


def test_sessions_are_not_taken_for_ids() -> None:
    records = [
        TraceRecord(id="a", t_s=0.0, input_tokens=1, output_tokens=1),
        TraceRecord(id="b", t_s=1.0, input_tokens=1, output_tokens=1, session="a"),
    ]
    assert len(by_session(records)) == 2
    assert fit_turns(by_session(records), 16) is None


def test_a_workload_needs_requests_and_a_period() -> None:
    with pytest.raises(ValueError, match="records is empty"):
        fit_workload([])
    with pytest.raises(ValueError, match=r"t_s of '0' is -1\.0; count times from the trace's start"):
        fit_workload(replace(record, t_s=record.t_s - 1) for record in alone(3))
    with pytest.raises(ValueError, match="period_s is 0"):
        fit_workload(alone(3), period_s=0)
